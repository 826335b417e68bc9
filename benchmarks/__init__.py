"""Benchmarks against what a user would write instead: ``python -m benchmarks NAME``."""

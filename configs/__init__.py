"""The shipped configs, installed as package data so that `configs/x.yaml` resolves without a clone."""

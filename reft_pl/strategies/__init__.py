"""Distributed training: ZeRO, collectives, and optimizer steps under any strategy."""

from reft_pl.strategies.zero import ZeRO

__all__ = ["ZeRO"]

"""Training on several processes: what Lightning's strategies lack, and what modules ask of them."""

from reft_pl.strategies.zero import ZeRO

__all__ = ["ZeRO"]

"""How the losses of actions become the loss of a mini-batch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from reft_pl.rl.masks import sequence_mean, token_mean


class Aggregation:
    """Mean over the mini-batch, whose micro-batches' shares sum to it however it is split.

    Args:
        kind: "sequence" weighs every sequence alike, "token" every action.
        mask: Actions of the whole mini-batch, [B, T] bool.
    """

    def __init__(self, kind: Literal["sequence", "token"], mask: Tensor) -> None:
        self.kind = kind
        self.count = max(1, int(mask.any(dim=-1).sum() if kind == "sequence" else mask.sum()))

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """The share of a micro-batch, a scalar; ``x`` and ``mask`` [b, t]."""
        return (sequence_mean if self.kind == "sequence" else token_mean)(x, mask, self.count)

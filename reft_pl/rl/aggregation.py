"""How the losses of actions become the loss of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from reft_pl.rl.masks import sequence_mean, token_mean


class Aggregation:
    """Mean over the mini-batch, whose micro-batches' shares sum to it however it is split.

    Args:
        kind: "sequence" weighs every sequence alike, "token" every action.
        mask: This rank's actions of the whole mini-batch, [B, T] bool.
        share: Makes of this rank's count what its losses are divided by, where ranks average their gradients: the count of all
            ranks / number of ranks. None: one rank.
    """

    def __init__(self, kind: Literal["sequence", "token"], mask: Tensor, share: Callable[[int], float] | None = None) -> None:
        self.kind = kind
        count = int(mask.any(dim=-1).sum() if kind == "sequence" else mask.sum())
        self.count = max(1, count) if share is None else share(count)

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """The share of a micro-batch, a scalar; ``x`` and ``mask`` [b, t]."""
        return (sequence_mean if self.kind == "sequence" else token_mean)(x, mask, self.count)

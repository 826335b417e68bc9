"""Reduce per-action losses to the loss of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

from reft_pl.rl.masks import sequence_mean, token_mean

AggregationKind: TypeAlias = Literal["sequence", "token", "sequence_sum", "constant"]
"""How per-action losses are averaged; see ``Aggregation``."""


class Aggregation:
    """Average losses over a mini-batch; the results of its micro-batches sum to that average, however it is split.

    For losses l_{b,t} of B sequences with T_b actions each:

    - ``sequence``: 1/B sum_b 1/T_b sum_t l_{b,t}. All sequences have equal weight (ReFT; GRPO, arXiv 2402.03300, eq. 3).
    - ``token``: sum_{b,t} l_{b,t} / sum_b T_b. All actions have equal weight (DAPO, arXiv 2503.14476, eq. 8).
    - ``sequence_sum``: 1/B sum_{b,t} l_{b,t}. The log-probability of a response is the sum over its tokens, so this is the
      policy gradient of whole responses (RLOO, arXiv 2402.14740, eq. 8).
    - ``constant``: 1/(B L) sum_{b,t} l_{b,t}, where L is the maximum response length. The weight of an action depends
      neither on lengths nor on masked positions (Dr. GRPO, arXiv 2503.20783, section 3.2).

    ``sequence`` and ``sequence_sum`` count the rows that have an action; ``constant`` counts all rows.

    Args:
        kind: Name of the average.
        mask: Actions of this rank in the whole mini-batch, [B, T] bool.
        share: Maps the count of this rank to its divisor when ranks average their gradients: count over all ranks / number
            of ranks. None: one rank.
        max_tokens: L, in tokens.
    """

    def __init__(
        self,
        kind: AggregationKind,
        mask: Tensor,
        share: Callable[[int], float] | None = None,
        *,
        max_tokens: int = 1,
    ) -> None:
        self.kind = kind
        rows = len(mask) if kind == "constant" else int(mask.any(dim=-1).sum())
        count = int(mask.sum()) if kind == "token" else rows
        self.count = max(1, count) if share is None else share(count)
        if kind == "constant":
            self.count *= max_tokens

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the contribution of a micro-batch, a scalar; ``x`` and ``mask`` are [b, t]."""
        return (sequence_mean if self.kind == "sequence" else token_mean)(x, mask, self.count)

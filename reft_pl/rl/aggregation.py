"""How the losses of actions become the loss of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

from reft_pl.rl.masks import sequence_mean, token_mean

AggregationKind: TypeAlias = Literal["sequence", "token", "sequence_sum", "constant"]
"""What the sum of all actions' losses is divided by; see ``Aggregation``."""


class Aggregation:
    """Mean over the mini-batch. The shares of its micro-batches sum to it, however it is split.

    With losses l_{b,t} of B sequences of T_b actions each:

    - ``sequence``: 1/B sum_b 1/T_b sum_t l_{b,t}. Every sequence weighs the same (ReFT; GRPO, arXiv 2402.03300, eq. 3).
    - ``token``: sum_{b,t} l_{b,t} / sum_b T_b. Every action weighs the same (DAPO, arXiv 2503.14476, eq. 8).
    - ``sequence_sum``: 1/B sum_{b,t} l_{b,t}. The gradient of a response's log-probability is a sum over its tokens, so
      this is the policy gradient of whole responses (RLOO, arXiv 2402.14740, eq. 8).
    - ``constant``: 1/(B L) sum_{b,t} l_{b,t} with L the most tokens that a response may have. Neither the lengths nor what
      is masked out changes an action's weight (Dr. GRPO, arXiv 2503.20783, section 3.2).

    ``sequence`` and ``sequence_sum`` count the rows that have an action, ``constant`` all rows.

    Args:
        kind: One of the four.
        mask: This rank's actions of the whole mini-batch, [B, T] bool.
        share: Turns this rank's count into the divisor of its losses, where ranks average their gradients: the count of all
            ranks / number of ranks. None: one rank.
        max_tokens: L, tokens.
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
        """The share of a micro-batch, a scalar; ``x`` and ``mask`` [b, t]."""
        return (sequence_mean if self.kind == "sequence" else token_mean)(x, mask, self.count)

"""Metrics that show whether an update is healthy; none enters the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reft_pl.rl.whitening import variance_over_ranks


def explained_variance(
    values: Tensor, returns: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Compute 1 - Var(R - v) / Var(R) over all actions of all ranks: 1 is perfect, 0 is no better than a constant.

    The result is floored at -1, so that one bad rollout does not flatten the plot. It is 0 if the returns do not vary.

    Args:
        values: v_t at the time of sampling, [B, T].
        returns: R_t, [B, T].
        mask: [B, T] bool.
        all_reduce: Returns the sum of a tensor over ranks. None: one rank.
    """
    total = variance_over_ranks(returns, mask, all_reduce)
    unexplained = variance_over_ranks(returns - values, mask, all_reduce)
    ratio = unexplained / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(total > 0, (1 - ratio).clamp(min=-1), torch.zeros_like(total))

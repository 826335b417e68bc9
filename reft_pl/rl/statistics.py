"""Statistics over the actions of all ranks: mean, variance, whitening and explained variance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_sum, zero_outside


def whiten(advantages: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Compute (A - mean) / sqrt(var + 1e-8), with mean and unbiased variance over the selected elements of all ranks.

    There are two passes (the mean, then squared deviations from it), because E[A^2] - E[A]^2 loses precision if the mean is
    large. Each pass reduces one or two numbers over ranks; a rank without actions must take part too.

    Args:
        advantages: A, [B, T]; B and T may differ between ranks.
        mask: [B, T] bool.
        all_reduce: Returns the sum of a tensor over ranks, and may work in place. None: one rank.

    Returns:
        [B, T], 0 outside the mask. If there is only one action in total, it becomes 0.
    """
    deviation, variance = _deviation_and_variance(advantages, mask, all_reduce)
    return deviation / (variance + 1e-8).sqrt()


def mean_over_ranks(x: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Average the selected elements of all ranks, a scalar; 0 if nothing is selected. Arguments as for ``whiten``."""
    return _count_and_mean(x, mask, all_reduce)[1]


def variance_over_ranks(x: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Compute the unbiased variance of the selected elements of all ranks; 0 if n < 2. Arguments as for ``whiten``."""
    return _deviation_and_variance(x, mask, all_reduce)[1]


def _deviation_and_variance(x: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    count, mean = _count_and_mean(x, mask, all_reduce)
    deviation = zero_outside(x - mean, mask)
    squares = deviation.square().sum()
    if all_reduce is not None:
        squares = all_reduce(squares)
    return deviation, squares / (count - 1).clamp(min=1)


def _count_and_mean(x: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    total = torch.stack([mask.sum().to(x.dtype), masked_sum(x, mask)])
    if all_reduce is not None:
        total = all_reduce(total)
    return total[0], total[1] / total[0].clamp(min=1)


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

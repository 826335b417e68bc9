"""Means and variances over all ranks, and the whitening of advantages over all of their actions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_sum, zero_outside


def whiten(advantages: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """(A - mean) / sqrt(var + 1e-8), both over the selected elements of all ranks; var is unbiased.

    Two passes (mean first, then squared deviations from it), because E[A^2] - E[A]^2 cancels when the mean is large. Each pass
    is one reduction of one or two numbers, in which a rank without any action must take part as well.

    Args:
        advantages: A, [B, T]; B and T may differ between ranks.
        mask: [B, T] bool.
        all_reduce: returns the sum of a tensor over ranks, and may work in place. None means one rank.

    Returns:
        [B, T], 0 outside the mask. A single action in all is whitened to 0.
    """
    deviation, variance = _deviation_and_variance(advantages, mask, all_reduce)
    return deviation / (variance + 1e-8).sqrt()


def mean_over_ranks(x: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Mean of the selected elements of all ranks, a scalar; 0 where nothing is selected. Arguments as for ``whiten``."""
    return _count_and_mean(x, mask, all_reduce)[1]


def variance_over_ranks(x: Tensor, mask: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Unbiased variance of the selected elements of all ranks, a scalar; 0 where n < 2. Arguments as for ``whiten``."""
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

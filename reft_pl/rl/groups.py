"""Group statistics: baselines and scales from the samples of one question.

The rows of a group are adjacent: x[g * n : (g + 1) * n]. ``counted`` [B] bool selects the samples that enter the statistics of
their group; None selects all. An excluded sample has no meaningful reward: it gets 0, and the others get the same result as in
a group without it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def centred_in_group(x: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """Compute x_i - mean_j x_j over the group of row i, [B].

    Args:
        x: [B].
        size: n, rows per group.
        counted: [B] bool. None: all rows count.

    Raises:
        ValueError: B is not a multiple of n.
    """
    groups, selected = _groups(x, size, counted)
    return torch.where(selected, groups - _means(groups, selected), 0).flatten()


def normalised_in_group(x: Tensor, size: int, epsilon: float = 1e-4, counted: Tensor | None = None) -> Tensor:
    """Compute (x_i - mean) / (std + epsilon) within the group, with unbiased std, [B]; 0 if all are equal.

    Source: GRPO, arXiv 2402.03300, section 4.1.2. Arguments as for ``centred_in_group``.
    """
    centred, selected = _groups(centred_in_group(x, size, counted), size, counted)
    variance = centred.square().sum(1, keepdim=True) / (selected.sum(1, keepdim=True) - 1).clamp(min=1)
    return (centred / (variance.sqrt() + epsilon)).flatten()


def relative_to_mean(x: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """Compute (x_i - mean) / mean within the group, [B]; 0 if the mean is not positive.

    For rewards of 0 and 1 this weights a question by the inverse of its success rate.

    Source: MaxRL, arXiv 2602.02710, algorithm 1. Arguments as for ``centred_in_group``.
    """
    groups, selected = _groups(x, size, counted)
    means = _means(groups, selected)
    return torch.where(selected & (means > 0), (groups - means) / torch.where(means > 0, means, 1), 0).flatten()


def leave_one_out(x: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """Compute x_i - sum_{j != i} x_j / (n - 1) = n / (n - 1) * (x_i - mean), [B]; 0 for the only counted sample of a group.

    Source: RLOO, arXiv 2402.14740, eq. 8. Arguments as for ``centred_in_group``.
    """
    centred, selected = _groups(centred_in_group(x, size, counted), size, counted)
    n = selected.sum(1, keepdim=True).to(x.dtype)  # dividing integers would give float32
    return (centred * (n / (n - 1).clamp(min=1))).flatten()


def varied_groups(x: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """Return which groups have differing counted elements, [B / n] bool; only these have non-zero advantages."""
    groups, selected = _groups(x, size, counted)
    infinity = torch.full_like(groups, torch.inf)
    lowest, highest = torch.where(selected, groups, infinity).amin(1), torch.where(selected, groups, -infinity).amax(1)
    return lowest < highest


def _means(groups: Tensor, selected: Tensor) -> Tensor:
    """Return the mean of each group's selected elements, [B / n, 1]; 0 if nothing is selected."""
    return torch.where(selected, groups, 0).sum(1, keepdim=True) / selected.sum(1, keepdim=True).clamp(min=1)


def _groups(x: Tensor, size: int, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the elements by group, and which of them count, both [B / n, n]."""
    if x.dim() != 1 or len(x) % size:
        raise ValueError(f"expected [B] with B a multiple of the group's {size} rows, got {tuple(x.shape)}")
    selected = torch.ones_like(x, dtype=torch.bool) if counted is None else counted
    return x.view(-1, size), selected.view(-1, size)

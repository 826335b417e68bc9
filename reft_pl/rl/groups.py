"""Statistics within the samples of one question. Rows of a group stand together: x[g * n : (g + 1) * n]."""

from __future__ import annotations

from torch import Tensor


def centred_in_group(x: Tensor, size: int) -> Tensor:
    """x_i - mean_j x_j over its group, [B].

    Args:
        x: [B].
        size: n, the rows of a group.

    Raises:
        ValueError: B is no multiple of n.
    """
    groups = _groups(x, size)
    return (groups - groups.mean(1, keepdim=True)).flatten()


def normalised_in_group(x: Tensor, size: int, epsilon: float = 1e-4) -> Tensor:
    """(x_i - mean) / (std + epsilon) within the group, std unbiased, [B] (arXiv 2402.03300, 4.1); 0 if all are equal."""
    centred = centred_in_group(x, size).view(-1, size)
    std = (centred.square().sum(1, keepdim=True) / (size - 1)).sqrt()
    return (centred / (std + epsilon)).flatten()


def leave_one_out(x: Tensor, size: int) -> Tensor:
    """x_i - sum_{j != i} x_j / (n - 1), [B] (arXiv 2402.14740, eq. 8); it equals n / (n - 1) * (x_i - mean)."""
    return centred_in_group(x, size) * (size / (size - 1))


def varied_groups(x: Tensor, size: int) -> Tensor:
    """Which groups' elements are not all equal, [B / n] bool: those that a baseline of the group can learn from."""
    groups = _groups(x, size)
    return (groups != groups[:, :1]).any(1)


def _groups(x: Tensor, size: int) -> Tensor:
    if x.dim() != 1 or len(x) % size:
        raise ValueError(f"expected [B] with B a multiple of the group's {size} rows, got {tuple(x.shape)}")
    return x.view(-1, size)

"""Statistics over the positions that a mask selects. What stands elsewhere, NaN included, never enters.

Notation: x_{b,t} and m_{b,t} in {0, 1} are [B, T] with b in [0, B), t in [0, T). Masks are bool. A product with the mask would
let NaN through (NaN * 0 is NaN), forwards and backwards; selection *before* any arithmetic does not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """x_{b,t} where m_{b,t} = 1, else 0; its gradient outside the mask is 0 too.

    Args:
        x: [B, T].
        mask: [B, T] bool.

    Raises:
        ValueError: if the mask is not bool or has another shape.
    """
    if mask.dtype != torch.bool or mask.shape != x.shape:
        raise ValueError(f"expected a bool mask of shape {tuple(x.shape)}, got {mask.dtype} of shape {tuple(mask.shape)}")
    return torch.where(mask, x, torch.zeros_like(x))


def at_last_action(x: Tensor, mask: Tensor) -> Tensor:
    """x_b at the last selected position of row b, [B, T], 0 elsewhere; a row without any gets nothing.

    Args:
        x: [B].
        mask: [B, T] bool.

    Raises:
        ValueError: if ``x`` is not [B].
    """
    if x.shape != mask.shape[:1]:
        raise ValueError(f"expected one number a sequence, shape {tuple(mask.shape[:1])}, got {tuple(x.shape)}")
    left = mask.flip(-1).cumsum(-1).flip(-1)  # selected positions from here on
    return torch.where(mask & (left == 1), x.unsqueeze(-1), torch.zeros_like(x).unsqueeze(-1))


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of m_t x_t over ``dim``, or over everything."""
    selected = zero_outside(x, mask)
    return selected.sum() if dim is None else selected.sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean, sum_t m_t x_t / sum_t m_t, over ``dim``, or over everything; 0 where nothing is selected."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """The largest selected element; 0 where nothing is selected."""
    selected = x[mask]
    return selected.max() if selected.numel() else x.new_zeros(())


def token_mean(x: Tensor, mask: Tensor, n_tokens: float | None = None) -> Tensor:
    """Mean over tokens, sum_{b,t} m_{b,t} x_{b,t} / n: every selected token weighs the same.

    Args:
        x: [B, T].
        mask: [B, T] bool.
        n_tokens: n. None counts this batch's tokens. A micro-batch passes the count of its whole mini-batch, and the results of
            all micro-batches then *sum* to the mini-batch's mean, however it was split. Where ranks average their
            gradients, pass the count of all ranks / number of ranks.
    """
    total = masked_sum(x, mask)
    return total / (mask.sum().clamp(min=1) if n_tokens is None else n_tokens)


def sequence_mean(x: Tensor, mask: Tensor, n_sequences: float | None = None) -> Tensor:
    """Mean over sequences of their means, sum_b (sum_t m_{b,t} x_{b,t} / sum_t m_{b,t}) / n, whatever their lengths.

    Args:
        x: [B, T].
        mask: [B, T] bool. A row without any selected position adds nothing and is not counted.
        n_sequences: n. None counts this batch's rows that have a selected position. A micro-batch passes the number of its
            whole mini-batch, and the results of all micro-batches then *sum* to the mini-batch's mean. Where ranks average
            their gradients, pass the number of all ranks / number of ranks.
    """
    total = masked_mean(x, mask, dim=-1).sum()
    return total / (mask.any(dim=-1).sum().clamp(min=1) if n_sequences is None else n_sequences)

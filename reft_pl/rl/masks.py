"""Masked statistics that ignore everything outside the mask, NaN included.

Notation: x_{b,t} and m_{b,t} in {0, 1} are [B, T] with b in [0, B), t in [0, T). Masks are bool. Multiplying by the mask would
propagate NaN (NaN * 0 is NaN), forwards and backwards; selecting *before* any arithmetic does not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """Return x_{b,t} where m_{b,t} = 1, else 0; the gradient outside the mask is 0 too.

    Args:
        x: [B, T].
        mask: [B, T] bool.

    Raises:
        ValueError: The mask is not bool or has another shape.
    """
    if mask.dtype != torch.bool or mask.shape != x.shape:
        raise ValueError(f"expected a bool mask of shape {tuple(x.shape)}, got {mask.dtype} of shape {tuple(mask.shape)}")
    return torch.where(mask, x, torch.zeros_like(x))


def at_last_action(x: Tensor, mask: Tensor) -> Tensor:
    """Place x_b at the last selected position of row b, [B, T], 0 elsewhere; a row without one is all 0.

    Args:
        x: [B].
        mask: [B, T] bool.

    Raises:
        ValueError: ``x`` is not [B].
    """
    if x.shape != mask.shape[:1]:
        raise ValueError(f"expected one number per sequence, shape {tuple(mask.shape[:1])}, got {tuple(x.shape)}")
    left = mask.flip(-1).cumsum(-1).flip(-1)  # selected positions from here on
    return torch.where(mask & (left == 1), x.unsqueeze(-1), torch.zeros_like(x).unsqueeze(-1))


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum the selected elements over ``dim``, or over everything."""
    selected = zero_outside(x, mask)
    return selected.sum() if dim is None else selected.sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Average the selected elements, sum_t m_t x_t / sum_t m_t, over ``dim`` or everything; 0 if nothing is selected."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Return the largest selected element; 0 if nothing is selected."""
    selected = x[mask]
    return selected.max() if selected.numel() else x.new_zeros(())


def token_mean(x: Tensor, mask: Tensor, n_tokens: float | None = None) -> Tensor:
    """Average over tokens, sum_{b,t} m_{b,t} x_{b,t} / n: all selected tokens have equal weight.

    Args:
        x: [B, T].
        mask: [B, T] bool.
        n_tokens: n. None counts the selected tokens of this batch. For micro-batches, pass the count of the whole mini-batch;
            their results then *sum* to its mean, however it is split. If ranks average gradients, pass the count over all
            ranks / number of ranks.
    """
    total = masked_sum(x, mask)
    return total / (mask.sum().clamp(min=1) if n_tokens is None else n_tokens)


def sequence_mean(x: Tensor, mask: Tensor, n_sequences: float | None = None) -> Tensor:
    """Average the means of sequences, sum_b (sum_t m_{b,t} x_{b,t} / sum_t m_{b,t}) / n: all sequences have equal weight.

    Args:
        x: [B, T].
        mask: [B, T] bool. A row without a selected position contributes 0 and is not counted.
        n_sequences: n. None counts the rows of this batch that have a selected position. For micro-batches, pass the count of
            the whole mini-batch; their results then *sum* to its mean. If ranks average gradients, pass the count over all
            ranks / number of ranks.
    """
    total = masked_mean(x, mask, dim=-1).sum()
    return total / (mask.any(dim=-1).sum().clamp(min=1) if n_sequences is None else n_sequences)

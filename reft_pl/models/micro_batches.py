"""Cutting a batch into micro-batches of bounded size and little padding."""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.types import TokenBatch


def split(batch: TokenBatch, max_tokens: int) -> list[Tensor]:
    """Group the rows of a batch, longest first, so that rows times longest row stays within ``max_tokens``.

    A row longer than ``max_tokens`` stands alone. The largest group comes first, so that memory runs out early or never.

    Args:
        batch: B sequences.
        max_tokens: Tokens of a micro-batch, padding included; at least 1.

    Returns:
        Row indices, int64 on the CPU: a partition of 0..B-1 that depends on the lengths alone.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    lengths = batch.attention_mask.sum(1).cpu()
    order = torch.argsort(lengths, descending=True, stable=True)
    groups: list[Tensor] = []
    start = 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        groups.append(order[start : start + rows])
        start += rows
    return groups


def take(batch: TokenBatch, rows: Tensor, device: torch.device | None = None) -> TokenBatch:
    """The given rows, moved to the left edge and cut to the longest of them, on ``device`` (default: where they are).

    Positions past a row's end keep what stood at its padding, masked.

    Args:
        batch: B sequences with padding on any side.
        rows: [b] int64 row indices.
        device: Where the micro-batch shall be.
    """
    rows = rows.to(batch.input_ids.device)
    mask = batch.attention_mask[rows]
    length = int(mask.sum(1).max()) if len(rows) else 0
    order = torch.argsort(~mask.bool(), dim=1, stable=True)[:, :length]
    return TokenBatch(
        *(t[rows].gather(1, order).to(device) for t in (batch.input_ids, batch.attention_mask, batch.action_mask))
    )

"""Collate token sequences into a padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reft_pl.types import TokenBatch


def collate(sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], pad_id: int) -> TokenBatch:
    """Right-pad sequences to one [B, T] batch.

    Args:
        sequences: B non-empty token sequences; B may be 0.
        prompt_lengths: Number of leading tokens of each sequence that the model does not choose, at least 1.
        pad_id: Padding token id. Masks are computed from lengths, so it may be any valid id, including EOS.

    Returns:
        The batch; ``action_mask[b, t]`` is true for ``t`` from ``prompt_lengths[b] - 1`` to ``len(sequences[b]) - 2``: position
        ``t`` chooses token ``t + 1``.
    """
    if len(sequences) != len(prompt_lengths):
        raise ValueError(f"got {len(sequences)} sequences and {len(prompt_lengths)} prompt lengths; need one per sequence")
    if any(not 1 <= n <= len(s) for s, n in zip(sequences, prompt_lengths, strict=True)):
        raise ValueError("every prompt must have at least one token and be no longer than its sequence")
    lengths = torch.tensor([len(s) for s in sequences], dtype=torch.int64)
    starts = torch.tensor(prompt_lengths, dtype=torch.int64)
    width = max(map(len, sequences), default=0)
    t = torch.arange(width)
    rows = [[*s, *[pad_id] * (width - len(s))] for s in sequences]
    return TokenBatch(
        input_ids=torch.tensor(rows, dtype=torch.int64).view(len(rows), width),
        attention_mask=t < lengths[:, None],
        action_mask=(t >= starts[:, None] - 1) & (t < lengths[:, None] - 1),
    )

"""How token sequences become one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reft_pl.types import TokenBatch


def collate(sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], pad_id: int) -> TokenBatch:
    """Pad sequences on the right to one [B, T] batch.

    Args:
        sequences: B token sequences, none empty.
        prompt_lengths: how many tokens of each are not the model's choice, at least 1.
        pad_id: what fills up. Masks come from lengths, so it may be any valid id, EOS too.

    Returns:
        The batch; ``action_mask[b, t]`` is true for ``t`` from ``prompt_lengths[b] - 1`` to ``len(sequences[b]) - 2``: position
        ``t`` chooses token ``t + 1``.
    """
    if len(sequences) != len(prompt_lengths) or not sequences:
        raise ValueError(
            f"got {len(sequences)} sequences and {len(prompt_lengths)} prompt lengths; need as many, and at least one"
        )
    if any(not 1 <= n <= len(s) for s, n in zip(sequences, prompt_lengths, strict=True)):
        raise ValueError("every prompt must have at least one token and be no longer than its sequence")
    lengths = torch.tensor([len(s) for s in sequences])
    starts = torch.tensor(prompt_lengths)
    width = int(lengths.max())
    t = torch.arange(width)
    return TokenBatch(
        input_ids=torch.tensor([[*s, *[pad_id] * (width - len(s))] for s in sequences]),
        attention_mask=t < lengths[:, None],
        action_mask=(t >= starts[:, None] - 1) & (t < lengths[:, None] - 1),
    )

"""Cutting a rollout into the parts that each take one optimizer step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reft_pl.rollout.seeds import counter_seed


def n_minibatches(n: int, size: int | None) -> int:
    """Parts of at most ``size`` rows that ``n`` rows make; None is all in one."""
    return -(-n // (size or n))


def places_over_ranks(mine: Sequence[int], everyones: Sequence[Sequence[int]], size: int) -> Tensor:
    """Where this rank's rows stand among the rows of all ranks, when those are in the order of the global batch.

    Args:
        mine: Of each of this rank's groups of rows, the place of its question in the global batch.
        everyones: The same of every rank, this one included.
        size: Rows of a group.

    Returns:
        [len(mine) * size] int64.
    """
    order = {place: index for index, place in enumerate(sorted(place for places in everyones for place in places))}
    groups = torch.tensor([order[place] for place in mine], dtype=torch.int64)
    return (groups.unsqueeze(1) * size + torch.arange(size)).flatten()


def minibatches(places: Tensor, n: int, parts: int, seed: int, step: int, epoch: int) -> tuple[Tensor, ...]:
    """This rank's rows of a random partition of ``n`` rows into parts of nearly one size, another one in every step and pass.

    The partition is drawn over the rows of all ranks, so that it is the same whatever their number. A rank's rows of a part may
    be more or fewer than another's, or none.

    Args:
        places: Which of the ``n`` rows this rank has: [b] distinct int64.
        n: Rows of the rollout, over all ranks.
        parts: How many parts; where there are fewer rows, the last ones are empty.
        seed: Run seed.
        step: Training batches before this one.
        epoch: Passes over this rollout before this one.

    Returns:
        int64 indices of this rank's rows, a tensor a part.
    """
    generator = torch.Generator().manual_seed(counter_seed(seed, "minibatches", step, str(epoch), 0) % 2**63)
    row_at = torch.full((n,), -1)
    row_at[places] = torch.arange(len(places))
    drawn = row_at[torch.randperm(n, generator=generator)].tensor_split(parts)
    return tuple(rows[rows >= 0] for rows in drawn)

"""Partition a rollout into mini-batches, one optimizer step each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reft_pl.rollout.seeds import counter_seed


def n_minibatches(n: int, size: int | None) -> int:
    """Return the number of mini-batches of at most ``size`` rows for ``n`` rows; 1 if ``size`` is None."""
    return -(-n // (size or n))


def places_over_ranks(mine: Sequence[int], everyones: Sequence[Sequence[int]], size: int) -> Tensor:
    """Return the indices of this rank's rows among the rows of all ranks, which are in the order of the global batch.

    Args:
        mine: Position of each of this rank's questions in the global batch.
        everyones: The same for every rank, including this one.
        size: Rows per question.

    Returns:
        [len(mine) * size] int64.
    """
    order = {place: index for index, place in enumerate(sorted(place for places in everyones for place in places))}
    groups = torch.tensor([order[place] for place in mine], dtype=torch.int64)
    return (groups.unsqueeze(1) * size + torch.arange(size)).flatten()


def minibatches(places: Tensor, n: int, parts: int, seed: int, step: int, epoch: int, size: int = 1) -> tuple[Tensor, ...]:
    """Partition ``n`` rows at random into mini-batches of nearly equal size, and return this rank's rows of each.

    The rows of a question stay together, so that they can share its prompt, except at the bounds of mini-batches. Each step and
    PPO epoch has a different partition. It covers the rows of all ranks, so it is the same for any number of ranks. Ranks may
    have different numbers of rows in a mini-batch, including none.

    Args:
        places: Indices of this rank's rows among the ``n`` rows, [b] distinct int64.
        n: Rows of the rollout over all ranks.
        parts: Number of mini-batches; if there are fewer rows, the last ones are empty.
        seed: Run seed.
        step: Number of training batches before this one.
        epoch: Number of passes over this rollout before this one.
        size: Rows per question, adjacent; ``n`` is a multiple of it.

    Returns:
        int64 indices into this rank's rows, one tensor per mini-batch.
    """
    generator = torch.Generator().manual_seed(counter_seed(seed, "minibatches", step, str(epoch), 0) % 2**63)
    row_at = torch.full((n,), -1)
    row_at[places] = torch.arange(len(places))
    questions = torch.randperm(n // size, generator=generator)
    drawn = row_at.view(-1, size)[questions].flatten().tensor_split(parts)
    return tuple(rows[rows >= 0] for rows in drawn)

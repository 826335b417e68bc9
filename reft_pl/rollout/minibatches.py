"""Cutting a rollout into the parts that each take one optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rollout.seeds import counter_seed


def n_minibatches(n: int, size: int | None) -> int:
    """Parts of at most ``size`` rows that ``n`` rows make; None is all in one."""
    return -(-n // (size or n))


def minibatches(n: int, parts: int, seed: int, step: int, epoch: int) -> tuple[Tensor, ...]:
    """A random partition of ``n`` rows into parts of nearly one size, another one in every step and pass.

    Args:
        n: Rows of the rollout.
        parts: How many parts; where there are fewer rows, the last ones are empty.
        seed: Run seed.
        step: Training batches before this one.
        epoch: Passes over this rollout before this one.

    Returns:
        int64 row indices, a tensor a part.
    """
    generator = torch.Generator().manual_seed(counter_seed(seed, "minibatches", step, str(epoch), 0) % 2**63)
    return torch.randperm(n, generator=generator).tensor_split(parts)

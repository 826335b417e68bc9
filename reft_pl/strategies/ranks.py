"""Collectives over the ranks of a run, which also work with a single process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from reft_pl.strategies.zero import ZeRO

T = TypeVar("T")
Part = tuple[float, float]
"""A rank's part of a mean: its sum and its count."""


class Ranks:
    """Sums, means and gathers over the ranks of a run. All ranks must make the same calls in the same order."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._trainer.world_size

    @property
    def rank(self) -> int:
        """Index of this rank, from 0."""
        return self._trainer.global_rank

    def sum(self, x: Tensor) -> Tensor:
        """Sum a tensor over ranks."""
        return cast("Tensor", self._trainer.strategy.reduce(x, reduce_op="sum")) if self.size > 1 else x

    def total(self, number: float) -> float:
        """Sum a number over ranks."""
        return sum(self.gather(number))

    def share(self, count: float) -> float:
        """Return the divisor of this rank's losses: the count over all ranks (1 if it is 0) divided by the number of ranks.

        Ranks average their gradients, so the losses result in the mean over everything counted.
        """
        return (self.total(count) or 1.0) / self.size

    def places(self, n: int) -> list[int]:
        """Return the indices of this rank's ``n`` problems in the global batch, of which it has every ``size``-th."""
        return list(range(self.rank, self.rank + n * self.size, self.size))

    def gather(self, mine: T) -> list[T]:
        """Gather one picklable object per rank, in the order of ranks."""
        if self.size == 1:
            return [mine]
        everyones: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyones, mine)
        return everyones

    def means(self, parts: Mapping[str, Part]) -> dict[str, float]:
        """Return the mean over ranks by name; 0 if the count is 0. Ranks may have different names."""
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for of_rank in self.gather(dict(parts)):
            for name, part in of_rank.items():
                sums[name] = [a + b for a, b in zip(sums[name], part, strict=True)]
        return {name: total / amount if amount else 0.0 for name, (total, amount) in sums.items()}

    def averages(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Average values over ranks by name; a missing value counts as 0."""
        of_ranks = self.gather(dict(figures))
        names = dict.fromkeys(name for of_rank in of_ranks for name in of_rank)
        return {name: sum(of_rank.get(name, 0.0) for of_rank in of_ranks) / self.size for name in names}

    def agree(self, decision: bool) -> bool:
        """Return rank 0's decision, for state that ranks may see differently (files, the clock)."""
        return bool(self._trainer.strategy.broadcast(decision))

    def even(self, micro_batches: Sequence[Callable[[], Tensor]], idle: Callable[[], Tensor]) -> list[Callable[[], Tensor]]:
        """Pad the micro-batches with idle ones, so that no rank waits forever for the passes of another.

        DeepSpeed exchanges parts of gradients, and in ZeRO-3 of weights, in every pass. DDP exchanges gradients only in the
        last pass, so at least one pass per rank is enough.
        """
        if self.size == 1:
            return list(micro_batches)
        n = max(self.gather(len(micro_batches))) if isinstance(self._trainer.strategy, ZeRO) else 1
        return [*micro_batches, *[idle] * (n - len(micro_batches))]

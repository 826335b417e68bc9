"""What a module asks of the processes that train together. One process alone is one of them."""

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
"""A rank's part of a mean: what it adds to the sum, and how much of it there is."""


class Ranks:
    """Sums, means and lists over the ranks of a run. Every rank must ask the same things in the same order."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._trainer.world_size

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""
        return self._trainer.global_rank

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over ranks."""
        return cast("Tensor", self._trainer.strategy.reduce(x, reduce_op="sum")) if self.size > 1 else x

    def total(self, number: float) -> float:
        """The sum of a number over ranks."""
        return sum(self.gather(number))

    def share(self, count: int) -> float:
        """What a rank's losses are divided by: the count of all ranks (at least 1) / number of ranks.

        Ranks average their gradients, so their losses add up to the mean over everything that was counted.
        """
        return max(1.0, self.total(count)) / self.size

    def places(self, n: int) -> list[int]:
        """Where this rank's ``n`` problems stand in the global batch, of which it has every ``size``-th."""
        return list(range(self.rank, self.rank + n * self.size, self.size))

    def gather(self, mine: T) -> list[T]:
        """What each rank has, in the order of ranks; anything that can be pickled."""
        if self.size == 1:
            return [mine]
        everyones: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyones, mine)
        return everyones

    def means(self, parts: Mapping[str, Part]) -> dict[str, float]:
        """Means over ranks, sum / amount by name; 0 where there is nothing. Ranks may know different names."""
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for of_rank in self.gather(dict(parts)):
            for name, part in of_rank.items():
                sums[name] = [a + b for a, b in zip(sums[name], part, strict=True)]
        return {name: total / amount if amount else 0.0 for name, (total, amount) in sums.items()}

    def averages(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Means of every rank's figures, whatever they stand for; a rank without a figure has 0 of it."""
        of_ranks = self.gather(dict(figures))
        names = dict.fromkeys(name for of_rank in of_ranks for name in of_rank)
        return {name: sum(of_rank.get(name, 0.0) for of_rank in of_ranks) / self.size for name in names}

    def agree(self, decision: bool) -> bool:
        """The first rank's decision, for what ranks see at different moments (files, the clock)."""
        return bool(self._trainer.strategy.broadcast(decision))

    def even(self, micro_batches: Sequence[Callable[[], Tensor]], idle: Callable[[], Tensor]) -> list[Callable[[], Tensor]]:
        """Micro-batches with idle ones after them, where another rank would wait for this one's passes for ever.

        DeepSpeed exchanges parts of gradients, and in ZeRO-3 of weights, in every pass; DDP gradients in the last one alone.
        """
        if self.size == 1:
            return list(micro_batches)
        n = max(self.gather(len(micro_batches))) if isinstance(self._trainer.strategy, ZeRO) else 1
        return [*micro_batches, *[idle] * (n - len(micro_batches))]

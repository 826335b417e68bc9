"""Where this rank's questions stand in the global batch, and other questions for the places that become free."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from reft_pl.rollout.seeds import counter_seed
from reft_pl.types import Problem


class GlobalBatch:
    """The questions of one rollout over all ranks.

    A question that refills a place is another one of the training set that is not in the batch. The order of those depends
    on the run's seed and on the step alone, so a rollout has the same questions on any number of ranks.

    Args:
        problems: This rank's questions.
        places: Their places in the global batch.
        gather: Returns what each rank passes to it, in the order of ranks.
        pool: All training questions, the same on every rank.
        seed: Run seed.
        step: Training batches before this one.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        places: Sequence[int],
        gather: Callable[[Any], list[Any]],
        pool: Sequence[Problem],
        seed: int,
        step: int,
    ) -> None:
        self.place_of = dict(zip((problem.id for problem in problems), places, strict=True))
        self._gather = gather
        self._pool = pool
        self._seed = counter_seed(seed, "refill", step, "", 0)
        self._others: list[Problem] | None = None

    def refill(self, problems: Sequence[Problem]) -> list[Problem] | None:
        """Questions in the places of these, as long as the training set has others; a rank may get none.

        Every rank calls this together. None on every rank: no place is free, or no question is left.
        """
        mine = [self.place_of[problem.id] for problem in problems]
        free = sorted(place for places in self._gather(mine) for place in places)
        if self._others is None:  # not before one is needed: it takes a look at all training questions
            batch = {name for names in self._gather(list(self.place_of)) for name in names}
            self._others = [problem for problem in self._pool if problem.id not in batch]
            random.Random(self._seed).shuffle(self._others)
        taken, self._others = dict(zip(free, self._others, strict=False)), self._others[len(free) :]
        if not taken:
            return None
        others = {place: taken[place] for place in mine if place in taken}
        self.place_of |= {problem.id: place for place, problem in others.items()}
        return list(others.values())

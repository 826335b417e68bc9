"""Annotated solutions that accompany a rollout: the weight of their loss, and their order over optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from reft_pl.rollout.seeds import counter_seed
from reft_pl.types import Problem


def annotated_weight(coef: float, schedule: Literal["constant", "linear"], step: int, total: float) -> float:
    """Return the weight of the annotated loss in one iteration: coef, or coef * max(0, 1 - step / total).

    Args:
        coef: Weight of the first iteration.
        schedule: ``constant``, or ``linear`` decay to 0.
        step: Number of iterations before this one.
        total: Number of iterations after which a linear weight is 0; positive.
    """
    return coef if schedule == "constant" else coef * max(0.0, 1.0 - step / total)


class AnnotatedQuestions:
    """The questions of one rollout, over all ranks, that have an annotated solution.

    Each pass over the rollout shuffles them, and the mini-batches take them in turn, starting again after the last question.
    The order depends only on run seed, step and pass, so it is the same on any number of ranks.

    Args:
        problems: Questions of this rank.
        places: Their positions in the global batch.
        gather: Returns the arguments of all ranks, in rank order.
        size: Questions per mini-batch over all ranks; None is all of them.
        seed: Run seed.
        step: Number of training batches before this one.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        places: Sequence[int],
        gather: Callable[[Any], list[Any]],
        size: int | None,
        seed: int,
        step: int,
    ) -> None:
        self._mine = {place: p for place, p in zip(places, problems, strict=True) if p.solution is not None}
        self._places = sorted(place for of_rank in gather(list(self._mine)) for place in of_rank)
        self._size = size or len(self._places)
        self._seed = seed
        self._step = step

    def minibatch(self, epoch: int, index: int) -> list[Problem]:
        """Return this rank's questions of a mini-batch, without duplicates.

        Args:
            epoch: Number of passes over this rollout before this one.
            index: Number of mini-batches of this pass before this one.
        """
        n = len(self._places)
        generator = torch.Generator().manual_seed(counter_seed(self._seed, "annotated", self._step, str(epoch), 0) % 2**63)
        order = torch.randperm(n, generator=generator).tolist()
        first = index * self._size
        taken = [self._places[order[i % n]] for i in range(first, first + min(self._size, n))]
        return [self._mine[place] for place in taken if place in self._mine]

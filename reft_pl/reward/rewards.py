"""The rewards of a run: one or several with weights, called concurrently within a time limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import TIMEOUT_MAX, Lock
from time import monotonic
from typing import Any

from reft_pl.errors import UserError
from reft_pl.formats.base import CoTFormat
from reft_pl.reward.answer import AnswerReward
from reft_pl.reward.background import EventLoop, finished, in_thread
from reft_pl.reward.base import Reward, RewardFunction, WeightedReward
from reft_pl.reward.failures import failure
from reft_pl.reward.functions import FunctionReward
from reft_pl.reward.outcomes import LARGEST, outcomes
from reft_pl.types import Columns, Problem, Sample

logger = logging.getLogger(__name__)

Parts = list[float | None]
"""What a reward returned for each sample."""


class Rewards:
    """One reward, or the weighted sum of several.

    A reward that returns None for a sample is left out of its sum. If no reward with a weight has a number, the update leaves
    the sample out. An ``async def`` function is called once per sample, all calls at once; any other reward once per
    rollout. Calls start when all responses of the rollout are sampled and executed.

    Args:
        reward: The only reward; None is ``AnswerReward`` if ``rewards`` is None too.
        rewards: Several rewards with weights.
        timeout: Seconds that the rewards of a rollout may take together; None is no limit. A call without result by then counts
            as None for its samples.

    Attributes:
        single: The only reward; None if there are several.

    Raises:
        UserError: both ``reward`` and ``rewards`` are set, ``rewards`` is empty, two have the same name, or a number is out of
            range.
    """

    def __init__(
        self, reward: Reward | None = None, rewards: Sequence[WeightedReward] | None = None, timeout: float | None = None
    ) -> None:
        if rewards is not None and not _is_default(reward):
            raise UserError(
                "model.reward and model.rewards are both set: list all rewards in model.rewards, and set model.reward to null"
            )
        if rewards is not None and not rewards:
            raise UserError("model.rewards is empty: list at least one reward, or set it to null")
        if timeout is not None and not 0 < timeout <= TIMEOUT_MAX:
            raise UserError(f"model.reward_timeout is {timeout:g}, but must be positive and finite: null is no limit")
        listed = [WeightedReward(reward or AnswerReward())] if rewards is None else rewards
        self.single = listed[0].reward if rewards is None else None
        self.timeout = timeout
        self._rewards = [_Named(entry) for entry in listed]
        self.names = names = [reward.name for reward in self._rewards]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"two rewards of model.rewards are called {repeated!r}: set name of one")
        self._loop = EventLoop()

    def check(self, problems: Sequence[Problem]) -> None:
        """Check that the training problems have the columns that functions require.

        Raises:
            UserError: one is missing, or has the name of another argument.
        """
        for reward in self._rewards:
            if isinstance(reward.reward, FunctionReward):
                reward.reward.check(problems)

    def score(self, samples: Sequence[Sample], cot_format: CoTFormat) -> tuple[list[Sample], list[float]]:
        """Return the samples with their rewards by name, and the outcome of each: the weighted sum, 0 without a number.

        Raises:
            UserError: a reward raised an exception, or returned neither a finite number nor None for a sample.
        """
        if not samples:  # a rank may have no samples; rewards need not handle that
            return [], []
        deadline = None if self.timeout is None else monotonic() + self.timeout
        begun = [reward.begin(samples, cot_format, self._loop, self.timeout) for reward in self._rewards]
        found = dict(zip(self.names, [collect(deadline) for collect in begun], strict=True))
        return self._summed(samples, found)

    def _summed(self, samples: Sequence[Sample], found: dict[str, Parts]) -> tuple[list[Sample], list[float]]:
        rewarded, sums = [], []
        for index, sample in enumerate(samples):
            parts = {name: values[index] for name, values in found.items()}
            terms = [r.weight * value for r in self._rewards if r.weight and (value := parts[r.name]) is not None]
            total = sum(terms)
            if not abs(total) <= LARGEST:
                raise UserError(
                    f"the rewards of a sample of the problem {sample.problem.id!r} add up to {total:g}: lower their weights"
                )
            rewarded.append(replace(sample, rewards=Columns(parts), rewarded=bool(terms)))
            sums.append(total)
        return rewarded, sums


class _Named:
    """A reward with its name and weight."""

    def __init__(self, entry: WeightedReward) -> None:
        self.reward = entry.reward if isinstance(entry.reward, RewardFunction) else FunctionReward(entry.reward)
        own = self.reward.name if isinstance(self.reward, FunctionReward) else type(self.reward).__name__
        self.name, self.weight = entry.name or own, entry.weight
        if not math.isfinite(self.weight):
            raise UserError(f"the weight of the reward {self.name} is {self.weight}: set a finite number")
        self._lock = Lock()

    def begin(
        self, samples: Sequence[Sample], cot_format: CoTFormat, loop: EventLoop, seconds: float | None
    ) -> Callable[[float | None], Parts]:
        """Start the calls, and return a function that waits for the rewards until a deadline.

        Without a time limit, a reward that is not async runs in the main thread, when its result is collected.
        """
        if isinstance(self.reward, FunctionReward) and self.reward.is_async:
            futures = [loop.start(self._awaited(sample, cot_format)) for sample in samples]
            return partial(self._collect, futures, [[sample] for sample in samples], None)
        call = partial(self._call, cot_format=cot_format)
        if seconds is None:
            return lambda _: self._checked(partial(call, samples), samples, call)
        return partial(self._collect, [in_thread(partial(call, samples), self._lock, seconds)], [samples], call)

    def _call(self, samples: Sequence[Sample], cot_format: CoTFormat) -> Any:
        return self.reward(samples, cot_format) if isinstance(self.reward, FunctionReward) else self.reward.score(samples)

    async def _awaited(self, sample: Sample, cot_format: CoTFormat) -> Any:
        return await self._call([sample], cot_format)

    def _collect(
        self,
        futures: Sequence[Future[Any]],
        batches: Sequence[Sequence[Sample]],
        again: Callable[[Sequence[Sample]], Any] | None,
        deadline: float | None,
    ) -> Parts:
        found: Parts = []
        late = 0
        for future, batch in zip(futures, batches, strict=True):
            if finished(future, deadline):
                found += self._checked(future.result, batch, again)
            else:
                found += [None] * len(batch)
                late += len(batch)
        if late:
            logger.warning("%s: no reward within model.reward_timeout for %d of %d samples", self.name, late, len(found))
        return found

    def _checked(
        self, result: Callable[[], Any], batch: Sequence[Sample], again: Callable[[Sequence[Sample]], Any] | None
    ) -> Parts:
        try:
            returned = result()
        except Exception as error:  # the code of a user may raise anything
            raise failure(self.name, error, batch, again) from error
        return outcomes(self.name, returned, batch)


def _is_default(reward: Reward | None) -> bool:
    """Whether a reward is what the command line fills in if none is set."""
    return reward is None or (type(reward) is AnswerReward and vars(reward) == vars(AnswerReward()))

"""The interface of rewards: a class from samples to rewards, or a plain function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reft_pl.types import Sample


class RewardFunction(ABC):
    """Base class of reward functions. A config names one by class path (``--model.reward my_pkg.MyReward``)."""

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """Return one finite reward per sample, in order; None leaves a sample out of the update.

        The trainer places the reward at the sample's last action.
        """


Reward: TypeAlias = RewardFunction | Callable[..., Any]
"""A reward: a ``RewardFunction``, or a plain or async function of completions (``reward.functions``)."""


@dataclass(frozen=True)
class WeightedReward:
    """One of several rewards.

    Attributes:
        reward: A reward class or a function.
        weight: Its factor in the sum. 0 only logs the reward.
        name: Name in the logs (``reward/NAME``); None is the name of the class or function.
    """

    reward: Reward
    weight: float = 1.0
    name: str | None = None

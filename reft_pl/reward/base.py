"""The reward function interface: from samples to rewards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from reft_pl.types import Sample


class RewardFunction(ABC):
    """Base class of reward functions. A config names one by class path (``--model.reward my_pkg.MyReward``)."""

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Return one finite reward per sample, in order. The trainer places it at the sample's last action."""

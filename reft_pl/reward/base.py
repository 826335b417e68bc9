"""The interface that turns samples into rewards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from reft_pl.types import Sample


class RewardFunction(ABC):
    """Scores samples; named in a config by class path (``--model.reward my_pkg.MyReward``)."""

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Return one finite reward a sample, in order. The trainer places it at the sample's last action."""

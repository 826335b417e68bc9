"""The interface of everything that can write completions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reft_pl.types import Completion, SampleRequest

if TYPE_CHECKING:
    from reft_pl.models.policy import Policy


class Sampler(ABC):
    """Writes completions with a policy's current weights.

    What a request samples is a function of the weights, the prompt, the parameters and the seed alone: not of the batch it
    travels in, its rank, or a restart.
    """

    @abstractmethod
    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        """Yield every completion of every request as soon as it has ended, in no fixed order."""

    def check(self, policy: Policy) -> None:  # noqa: B027 (a sampler that runs any model has nothing to check)
        """Find out, before anything is trained, whether this policy can be sampled.

        Raises:
            UserError: it cannot.
        """

    @abstractmethod
    def sync(self, policy: Policy) -> None:
        """Take over the policy's weights as they are now; to be called after every update and before ``stream``."""

"""The interface of everything that can write completions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reft_pl.errors import UserError
from reft_pl.rl.importance import sampler_mismatch
from reft_pl.rl.masks import masked_mean
from reft_pl.types import Completion, SampleRequest, SamplingParams, ScoredRollout

if TYPE_CHECKING:
    from reft_pl.models.policy import Policy

TWO_TOKENS = SampleRequest("check", (0, 0), SamplingParams(2, temperature=0.0), eos_ids=())
"""The least that can be sampled to find out whether anything can: one token after the prompt, and one after that."""


class Sampler(ABC):
    """Writes completions with a policy's current weights.

    What a request samples is a function of the weights, the prompt, the parameters and the seed alone: not of the batch it
    travels in, its rank, or a restart. (An engine of its own may round otherwise in another batch: it says so.)
    """

    max_mismatch: float | None = None
    """Mean |log p of the sampler - log p of the scorer| (nats a token) above which a rollout is refused; None is no bound."""

    records_values: bool = False
    """Whether completions can hold the values of a head on the policy's own trunk (``SamplingParams.record_values``)."""

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

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Give back what the sampler holds; after another ``sync`` it can be used again."""

    def check_rollout(self, rollout: ScoredRollout) -> None:
        """Find out whether the weights that wrote a rollout can be the policy's.

        Raises:
            UserError: what the sampler said of its tokens is too far from what the policy says of them.
        """
        mask = rollout.tokens.action_mask
        mismatch = float(masked_mean(sampler_mismatch(rollout.logprobs, rollout.sampler_logprobs, mask), mask))
        if self.max_mismatch is not None and not mismatch <= self.max_mismatch:
            raise UserError(
                f"{type(self).__name__} and the policy differ by {mismatch:.3f} nats a token on the sampler's own samples, and "
                f"model.sampler.max_mismatch is {self.max_mismatch}: the engine has other weights than the policy, or computes "
                f"otherwise; nothing was learned from this rollout, and the run's last checkpoint is whole"
            )

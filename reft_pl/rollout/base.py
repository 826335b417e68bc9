"""The interface of samplers."""

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
"""The smallest request that smoke-tests a sampler: one token from the prompt, and one from the KV cache."""


class Sampler(ABC):
    """Base class of samplers, which generate completions with the policy's current weights.

    A completion depends only on the weights, the prompt, the sampling parameters and the seed. The batch, the rank and restarts
    do not change it. A sampler with a separate engine may round differently in another batch; it must document this.
    """

    max_mismatch: float | None = None
    """Bound on the mean |log p of the sampler - log p of the scorer| of a rollout (nats per token); None disables the check."""

    records_values: bool = False
    """Whether completions can include values from a head on the policy's trunk (``SamplingParams.record_values``)."""

    @abstractmethod
    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        """Yield every completion of every request as soon as it ends, in any order."""

    def check(self, policy: Policy) -> None:  # noqa: B027 (a sampler that runs any model has nothing to check)
        """Check before training that this sampler supports the policy.

        Raises:
            UserError: The sampler cannot run it.
        """

    @abstractmethod
    def sync(self, policy: Policy) -> None:
        """Load the policy's current weights; call it before the first ``stream`` and after every update."""

    def close(self) -> None:  # noqa: B027 (most samplers hold no resources)
        """Release resources; ``sync`` makes the sampler usable again."""

    def check_rollout(self, rollout: ScoredRollout) -> None:
        """Check that a rollout was sampled with the policy's weights.

        Raises:
            UserError: The log-probabilities of sampler and policy differ by more than ``max_mismatch``.
        """
        mask = rollout.tokens.action_mask
        mismatch = float(masked_mean(sampler_mismatch(rollout.logprobs, rollout.sampler_logprobs, mask), mask))
        if self.max_mismatch is not None and not mismatch <= self.max_mismatch:
            raise UserError(
                f"the log-probabilities of {type(self).__name__} and the policy differ by {mismatch:.3f} nats per token, and "
                f"model.sampler.max_mismatch allows {self.max_mismatch}: the engine has other weights or computes differently; "
                f"this rollout was not used for training, and the last checkpoint is intact"
            )

"""The records that pass between layers: frozen, with a shape for every field.

Axes: B sequences, T tokens of the padded batch. Position ``t`` holds the state before token ``t + 1``, so whatever is said
*about* the choice of token ``t + 1`` (its log-probability, its mask, its reward) stands at ``t``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import torch
from torch import Tensor

Answer: TypeAlias = float | str
"""A number, or the lower-case letter of a choice (one of ``reft_pl.choices.CHOICES``)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer and, where the dataset has one, its annotated solution.

    ``answer`` is None where nobody knows it: such a problem can be solved, and no solution of it counts as right.
    """

    id: str
    question: str
    answer: Answer | None
    solution: str | None = None


class Status(str, Enum):
    """How the attempt to get an answer out of a completion ended. Only ``OK`` comes with a value."""

    OK = "ok"
    WRONG_TYPE = "wrong_type"
    NON_NUMERIC = "non_numeric"
    NON_FINITE = "non_finite"
    TOO_LARGE = "too_large"
    NO_SOLUTION = "no_solution"
    SYNTAX_ERROR = "syntax_error"
    EXCEPTION = "exception"
    MEMORY = "memory"
    TIMEOUT = "timeout"
    KILLED = "killed"
    DIED = "died"
    NO_RESULT = "no_result"
    BAD_FRAME = "bad_frame"
    OUTPUT_TOO_LARGE = "output_too_large"
    WORKER_DIED = "worker_died"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What running a program, or reading a text, gave.

    ``value`` is set exactly when ``status`` is ``OK``; ``backend`` names what decided (``cpython``, ``text``);
    ``detail`` is one line for people (an exception's class, say) and never decides anything.
    """

    status: Status
    value: Answer | None = None
    seconds: float = 0.0
    backend: str = ""
    detail: str = ""


class StopReason(str, Enum):
    """Why a completion ended: it chose a stop id, or the length limit cut it off."""

    EOS = "eos"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 switch truncation off.

    ``record_values`` asks a sampler that can (``Sampler.records_values``) for the values of the states they are drawn in.
    ``suppressed`` holds half-open ranges of token ids that are never chosen, such as padding of the vocabulary. They truncate
    the distribution as top-k does, so log-probabilities do not depend on them.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    record_values: bool = False
    suppressed: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One prompt and the seeds of the completions wanted for it, one completion a seed.

    A completion ends at the first of ``eos_ids`` that it chooses (empty: at the length limit alone).

    Raises:
        ValueError: the prompt is empty, or there is no room for a token.
    """

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seeds: tuple[int, ...] = (0,)
    eos_ids: tuple[int, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        if not self.prompt_ids or self.params.max_new_tokens < 1:
            raise ValueError(f"request {self.id!r} has an empty prompt or no room for a new token")


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote for one seed of a request.

    ``token_ids`` ends with a stop id exactly when ``stop`` is ``EOS``. ``logprobs[i]`` (nats) belongs to ``token_ids[i]`` under
    the policy's distribution at the sampling temperature before top-k and top-p (temperature 1 for greedy decoding).
    ``values[i]`` is that of the state in which ``token_ids[i]`` was chosen, where it was asked for and the policy has a head
    that knows it.
    """

    request_id: str
    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: StopReason
    values: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A problem, what was written for it, and what came of it. ``text`` is the whole response, given lines included."""

    problem: Problem
    completion: Completion
    text: str
    result: ExecutionResult


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Padded sequences, all tensors [B, T]; padding may stand on either side.

    ``input_ids`` int64; ``attention_mask`` bool, true on real tokens; ``action_mask`` bool, true at ``t`` where the choice of
    token ``t + 1`` counts (a target token in SFT, an action in PPO; EOS is one, padding never).
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(self.input_ids.to(device), self.attention_mask.to(device), self.action_mask.to(device))

    def __post_init__(self) -> None:
        shape = self.input_ids.shape
        if len(shape) != 2 or self.attention_mask.shape != shape or self.action_mask.shape != shape:
            raise ValueError(
                f"a TokenBatch holds three [B, T] tensors, got {tuple(shape)}, {tuple(self.attention_mask.shape)} and "
                f"{tuple(self.action_mask.shape)}"
            )


@dataclass(frozen=True, slots=True)
class Scores:
    """What a policy says of a TokenBatch, all [B, T] fp32 and 0 outside the action mask.

    ``logprobs[b, t]`` of token ``t + 1``; ``entropy[b, t]`` of the distribution it was chosen from (nats); ``values[b, t]``
    of the state at ``t`` (None for a policy without a value head).
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One iteration's experience: B samples as tokens, on the policy's device, and what the reward function gave, [B].

    ``left_out`` is what was sampled as well and is not learned from (None: nothing).
    """

    samples: tuple[Sample, ...]
    tokens: TokenBatch
    outcome: Tensor
    left_out: Rollout | None = field(default=None, kw_only=True)

    @property
    def sampled(self) -> tuple[tuple[Sample, float], ...]:
        """Everything that was sampled, left out or not, with what the reward function gave it."""
        mine = tuple(zip(self.samples, self.outcome.tolist(), strict=True))
        return mine if self.left_out is None else mine + self.left_out.sampled


@dataclass(frozen=True, slots=True)
class ScoredRollout(Rollout):
    """A rollout with what policies say of it, all [B, T] as in ``Scores``.

    ``logprobs``, ``values`` and ``entropy`` are of the policy before the update, ``ref_logprobs`` of the frozen reference,
    ``sampler_logprobs`` what the sampler said when it drew the tokens.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    sampler_logprobs: Tensor

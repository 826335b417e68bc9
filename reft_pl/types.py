"""Frozen records that pass between layers, with a documented shape for every tensor.

Axes: B sequences, T tokens of the padded batch. Position ``t`` is the state before token ``t + 1``. Everything about the choice
of token ``t + 1`` (its log-probability, mask and reward) is therefore stored at ``t``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import torch
from torch import Tensor

Answer: TypeAlias = float | str
"""A number, or the lower-case letter of a choice (one of ``reft_pl.choices.CHOICES``)."""


class Columns(Mapping[str, Any]):
    """A read-only, picklable mapping from names to the values of one row."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values))

    def __repr__(self) -> str:
        return f"Columns({self._values!r})"


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its reference answer and, if the dataset has one, its annotated solution.

    ``answer`` is None if it is unknown; such a problem can be sampled, but none of its samples counts as correct.
    ``given_lines`` is the number of lines of the solution that the sampling prompt already holds. ``columns`` holds further
    columns of the dataset that the source names, for reward functions.
    """

    id: str
    question: str
    answer: Answer | None
    solution: str | None = None
    given_lines: int = 0
    columns: Mapping[str, Any] = field(default=Columns(), hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Columns):
            object.__setattr__(self, "columns", Columns(self.columns))


class Status(str, Enum):
    """Outcome of extracting an answer from a completion; only ``OK`` has a value."""

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
    """The result of running a program, or of parsing the answer from a text.

    Attributes:
        status: How it ended.
        value: The answer; set if and only if ``status`` is ``OK``.
        seconds: Run time of the program.
        backend: What produced the result, such as ``cpython`` or ``text``.
        detail: One line for humans, such as the class of an exception; no code depends on it.
    """

    status: Status
    value: Answer | None = None
    seconds: float = 0.0
    backend: str = ""
    detail: str = ""


class StopReason(str, Enum):
    """Why a completion ended: the policy sampled a stop id, or the length limit truncated it."""

    EOS = "eos"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample tokens.

    Attributes:
        max_new_tokens: Maximum length of a completion.
        temperature: Sampling temperature; 0 is greedy.
        top_k: Sample from the k most likely tokens; 0 disables it.
        top_p: Nucleus sampling threshold; 1 disables it.
        record_values: Also return the value of the state before each token, if the sampler can (``Sampler.records_values``).
        suppressed: Half-open ranges of token ids that are never sampled, such as the padding of the vocabulary. They truncate
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
    """A prompt and the seeds of its completions, one completion per seed.

    A completion ends with the first sampled token that is in ``eos_ids``, or at the length limit.

    Raises:
        ValueError: The prompt is empty, or ``max_new_tokens`` is below 1.
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
    """The sampled tokens for one seed of a request.

    Attributes:
        request_id: Id of the request.
        index: Index of the seed in the request.
        token_ids: Sampled tokens, ending with a stop id if and only if ``stop`` is ``EOS``.
        logprobs: Log-probability (nats) of each token at the sampling temperature, before top-k and top-p (temperature 1 for
            greedy decoding).
        stop: Why the completion ended.
        values: Value of the state before each token, if requested and the policy has a suitable value head.
    """

    request_id: str
    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: StopReason
    values: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled solution of a problem, with its result.

    Attributes:
        problem: The problem.
        completion: The sampled tokens.
        text: The whole response, including lines given in the prompt.
        result: What the execution of the response gave.
        prompt_ids: The prompt that the completion continues; the collector sets it.
        rewards: What each reward returned, by name and without its weight; None leaves the reward out of the sum.
        rewarded: False if every reward that has a weight returned None. The update then leaves the sample out.
    """

    problem: Problem
    completion: Completion
    text: str
    result: ExecutionResult
    prompt_ids: tuple[int, ...] = ()
    rewards: Mapping[str, float | None] = field(default=Columns(), hash=False)
    rewarded: bool = True


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Sequences padded on the left or the right.

    Attributes:
        input_ids: [B, T] int64.
        attention_mask: [B, T] bool, true on real tokens.
        action_mask: [B, T] bool, true at ``t`` if token ``t + 1`` is a target token (SFT) or an action (PPO). EOS can be
            one, padding never is.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """Copy the batch to another device."""
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
    """A policy's evaluation of a TokenBatch, all [B, T] fp32 and 0 outside the action mask.

    Attributes:
        logprobs: At ``t``, log-probability of token ``t + 1`` (nats).
        entropy: At ``t``, entropy of the distribution of token ``t + 1`` (nats).
        values: At ``t``, value of the state; None for a policy without a value head.
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The samples of one iteration, as tokens on the policy's device, with their rewards.

    Attributes:
        samples: B samples.
        tokens: Prompts and completions, [B, T].
        outcome: Reward of each sample, [B]; 0 if it has none.
        left_out: Samples of this iteration that the update does not use. None: there are none.
    """

    samples: tuple[Sample, ...]
    tokens: TokenBatch
    outcome: Tensor
    left_out: Rollout | None = field(default=None, kw_only=True)

    @property
    def sampled(self) -> tuple[tuple[Sample, float], ...]:
        """Return all samples with their rewards, including those left out."""
        mine = tuple(zip(self.samples, self.outcome.tolist(), strict=True))
        return mine if self.left_out is None else mine + self.left_out.sampled


@dataclass(frozen=True, slots=True)
class ScoredRollout(Rollout):
    """A rollout with log-probabilities and values, all [B, T] as in ``Scores``.

    Attributes:
        logprobs: From the policy before the update.
        ref_logprobs: From the frozen reference.
        values: From the policy before the update.
        entropy: From the policy before the update.
        sampler_logprobs: Reported by the sampler with the tokens.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    sampler_logprobs: Tensor

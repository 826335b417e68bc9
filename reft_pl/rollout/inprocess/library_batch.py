"""Sampling with the cache and attention of transformers, for architectures that the packed sampler does not run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from reft_pl.models.architecture import text_config
from reft_pl.models.compilation import compiled_layers
from reft_pl.rollout.inprocess.architectures import WITHOUT_CACHE
from reft_pl.rollout.inprocess.token_sampling import DrawParams, draw
from reft_pl.rollout.seeds import uniforms_at
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason


@dataclass(slots=True, eq=False)
class LibraryRow:
    """One completion being written."""

    request: SampleRequest
    index: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def stop(self) -> StopReason | None:
        """Why it has ended, if it has."""
        if self.token_ids and self.token_ids[-1] in self.request.eos_ids:
            return StopReason.EOS
        return StopReason.LENGTH if len(self.token_ids) == self.request.params.max_new_tokens else None

    def completion(self) -> Completion:
        """The finished completion."""
        assert self.stop is not None
        values = tuple(self.values) or None
        return Completion(self.request.id, self.index, tuple(self.token_ids), tuple(self.logprobs), self.stop, values)


class LibraryBatch:
    """Groups of rows with prompts of equal length, one ``generate`` call each.

    Equal lengths need no padding, which the state of a recurrent layer would take in. A row draws its tokens with the same
    numbers as in ``ContinuousBatch``, so the batch changes samples by rounding alone.

    Args:
        lm: The model.
        requests: What to write.
        max_rows: Rows of a group at most.
        value_head: Maps the LM head's input, [..., D], to values, [..., 1].
        cached: Whether the library's cache is used; without it, each token takes a pass over the whole text.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        requests: Sequence[SampleRequest],
        max_rows: int,
        value_head: nn.Module | None = None,
        cached: bool = True,
    ) -> None:
        self.lm = lm
        self.cached = cached
        self.max_rows = max_rows
        self.value_head = value_head
        rows = [LibraryRow(request, index) for request in requests for index in range(len(request.seeds))]
        # Longest prompts first; of these the rows that write most, so that rows of a group end together.
        rows.sort(key=lambda row: (len(row.request.prompt_ids), row.request.params.max_new_tokens), reverse=True)
        self.groups: deque[list[LibraryRow]] = deque()
        for _, same in groupby(rows, key=lambda row: len(row.request.prompt_ids)):
            group = list(same)
            self.groups.extend(group[first : first + max_rows] for first in range(0, len(group), max_rows))

    @property
    def done(self) -> bool:
        """Whether every completion has ended."""
        return not self.groups

    def run_until_one_ends(self) -> list[Completion]:
        """Write the next group.

        Raises:
            FloatingPointError: the policy's logits are not finite.
        """
        rows = self.groups.popleft()
        prompts = torch.tensor([row.request.prompt_ids for row in rows], device=self.lm.device)
        with _plain_generation(self.lm), _head_inputs(self.lm, self.value_head) as seen:
            drawing = _Drawing(rows, self.value_head, seen, self.lm.device)
            self.lm.generate(  # type: ignore[operator]
                prompts,
                attention_mask=torch.ones_like(prompts),
                generation_config=self._settings(rows),
                logits_processor=LogitsProcessorList([drawing]),
                stopping_criteria=StoppingCriteriaList([_Ended(rows)]),
            )
        return [row.completion() for row in rows]

    def _settings(self, rows: Sequence[LibraryRow]) -> GenerationConfig:
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max(row.request.params.max_new_tokens for row in rows),
            do_sample=False,
            use_cache=self.cached,
            disable_compile=True,
            pad_token_id=0,  # for the rows that have ended while others have not; nobody reads it
        )


def serves_exactly(lm: PreTrainedModel, cached: bool) -> bool:
    """Whether ``generate`` has the log-probabilities of plain forward passes: two rows of eight greedy tokens tell.

    For some recurrent architectures it has not with the cache; these are sampled without.
    """
    text = text_config(lm.config)
    if cached and text.model_type in WITHOUT_CACHE:
        return False
    prompts = [tuple(token % text.vocab_size for token in range(first, first + 6)) for first in (3, 11)]
    requests = [SampleRequest("check", prompt, SamplingParams(8, temperature=0.0), eos_ids=()) for prompt in prompts]
    try:
        completions = LibraryBatch(lm, requests, max_rows=2, cached=cached).run_until_one_ends()
    except FloatingPointError:
        raise
    except Exception:
        if not cached:
            raise
        return False  # whatever a cache that does not fit its model raises
    tolerance = 1e-3 if lm.dtype == torch.float32 else 0.2
    return all(
        _distance(lm, request, completion) < tolerance for request, completion in zip(requests, completions, strict=True)
    )


def _distance(lm: PreTrainedModel, request: SampleRequest, completion: Completion) -> float:
    """The largest difference, in nats, between a completion's log-probabilities and those of a plain forward pass."""
    start, ids = len(request.prompt_ids), torch.tensor([request.prompt_ids + completion.token_ids], device=lm.device)
    scores = lm(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float().log_softmax(dim=-1)
    plain = scores.gather(-1, ids[0, start:, None]).squeeze(-1)
    return float((plain.cpu() - torch.tensor(completion.logprobs)).abs().max())


class _Drawing(LogitsProcessor):
    """Draws each row's next token, and leaves ``generate`` no other choice."""

    def __init__(
        self, rows: Sequence[LibraryRow], value_head: nn.Module | None, seen: list[Tensor], device: torch.device
    ) -> None:
        self.rows = rows
        self.value_head = value_head
        self.seen = seen
        self.params = DrawParams.of([row.request.params for row in rows], device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Keep the drawn token alone of [B, V] logits."""
        seeds = [row.request.seeds[row.index] for row in self.rows]
        u = torch.from_numpy(uniforms_at(seeds, [len(row.token_ids) for row in self.rows])).to(scores.device)
        drawn, logprobs = draw(scores, self.params, u)
        if not bool(logprobs.isfinite().all()):
            raise FloatingPointError("the policy's logits are not finite: its weights are broken")
        values = [] if self.value_head is None else self.value_head(self.seen[-1][:, -1]).squeeze(-1).tolist()
        self.seen.clear()
        for at, (row, token, logprob) in enumerate(zip(self.rows, drawn.tolist(), logprobs.tolist(), strict=True)):
            if row.stop is None:
                row.token_ids.append(token)
                row.logprobs.append(logprob)
                row.values.extend(values[at : at + 1])
        return torch.full_like(scores, float("-inf")).scatter(1, drawn[:, None], 0.0)


class _Ended(StoppingCriteria):
    """Stops when every row has ended."""

    def __init__(self, rows: Sequence[LibraryRow]) -> None:
        self.rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """Which rows have ended, [B] bool."""
        return torch.tensor([row.stop is not None for row in self.rows], device=input_ids.device)


@contextmanager
def _plain_generation(lm: PreTrainedModel) -> Iterator[None]:
    """Set aside the model's own generation settings, which ``generate`` merges in, and the layers' compiled code.

    Layers are compiled for training; with the library's cache each of them would be compiled by itself.
    """
    own, layers = lm.generation_config, compiled_layers(lm)
    compiled = [layer._compiled_call_impl for layer in layers]
    lm.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    for layer in layers:
        layer._compiled_call_impl = None
    try:
        yield
    finally:
        lm.generation_config = own
        for layer, call in zip(layers, compiled, strict=True):
            layer._compiled_call_impl = call


@contextmanager
def _head_inputs(lm: PreTrainedModel, value_head: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect what the LM head reads, [B, T, D] a call, if there is a value head to read it too."""
    seen: list[Tensor] = []
    if value_head is None:
        yield seen
        return
    head: nn.Module = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()

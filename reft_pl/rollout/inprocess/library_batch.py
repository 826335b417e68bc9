"""Sample with ``generate``, for architectures that the packed sampler does not support."""

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
from reft_pl.models.packed_architectures import WITHOUT_CACHE
from reft_pl.rollout.inprocess.token_sampling import DrawParams, draw
from reft_pl.rollout.seeds import uniforms_at
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason


@dataclass(slots=True, eq=False)
class LibraryRow:
    """One completion in progress."""

    request: SampleRequest
    index: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def stop(self) -> StopReason | None:
        """Return why the row has ended; None while it runs."""
        if self.token_ids and self.token_ids[-1] in self.request.eos_ids:
            return StopReason.EOS
        return StopReason.LENGTH if len(self.token_ids) == self.request.params.max_new_tokens else None

    def completion(self) -> Completion:
        """Return the finished completion."""
        assert self.stop is not None
        values = tuple(self.values) or None
        return Completion(self.request.id, self.index, tuple(self.token_ids), tuple(self.logprobs), self.stop, values)


class LibraryBatch:
    """Groups of rows with equally long prompts, one ``generate`` call each.

    Prompts of equal length need no padding, which would corrupt the state of recurrent layers. A row uses the same random
    numbers as in ``ContinuousBatch``, so samples are identical up to rounding.

    Args:
        lm: The model.
        requests: What to sample.
        max_rows: Maximum number of rows per group.
        value_head: Maps the LM head's input, [..., D], to values, [..., 1].
        cached: Use the KV cache of transformers; without it, each token takes a forward pass over the whole sequence.
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
        # Longest prompts first, then the longest length limits, so that the rows of a group end together.
        rows.sort(key=lambda row: (len(row.request.prompt_ids), row.request.params.max_new_tokens), reverse=True)
        self.groups: deque[list[LibraryRow]] = deque()
        for _, same in groupby(rows, key=lambda row: len(row.request.prompt_ids)):
            group = list(same)
            self.groups.extend(group[first : first + max_rows] for first in range(0, len(group), max_rows))

    @property
    def done(self) -> bool:
        """Return whether every completion has ended."""
        return not self.groups

    def run_until_one_ends(self) -> list[Completion]:
        """Sample the next group.

        Raises:
            FloatingPointError: The policy's logits are not finite.
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
            pad_token_id=0,  # pads finished rows; never read
        )


def serves_exactly(lm: PreTrainedModel, cached: bool) -> bool:
    """Return whether ``generate`` and a plain forward pass agree on log-probabilities, for two rows of eight greedy tokens.

    For some recurrent architectures they disagree when the KV cache is used; these are sampled without it.
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
        return False  # a KV cache that does not fit the model may raise anything
    tolerance = 1e-3 if lm.dtype == torch.float32 else 0.2
    return all(
        _distance(lm, request, completion) < tolerance for request, completion in zip(requests, completions, strict=True)
    )


def _distance(lm: PreTrainedModel, request: SampleRequest, completion: Completion) -> float:
    """Return the largest difference, in nats, between the log-probabilities of a completion and of a plain forward pass."""
    start, ids = len(request.prompt_ids), torch.tensor([request.prompt_ids + completion.token_ids], device=lm.device)
    scores = lm(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float().log_softmax(dim=-1)
    plain = scores.gather(-1, ids[0, start:, None]).squeeze(-1)
    return float((plain.cpu() - torch.tensor(completion.logprobs)).abs().max())


class _Drawing(LogitsProcessor):
    """Samples each row's next token, and masks all others so that ``generate`` must choose it."""

    def __init__(
        self, rows: Sequence[LibraryRow], value_head: nn.Module | None, seen: list[Tensor], device: torch.device
    ) -> None:
        self.rows = rows
        self.value_head = value_head
        self.seen = seen
        self.params = DrawParams.of([row.request.params for row in rows], device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sample from [B, V] logits; return 0 for each row's sampled token and -inf elsewhere, [B, V]."""
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
    """Stops ``generate`` when every row has ended."""

    def __init__(self, rows: Sequence[LibraryRow]) -> None:
        self.rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """Mark the rows that have ended, [B] bool."""
        return torch.tensor([row.stop is not None for row in self.rows], device=input_ids.device)


@contextmanager
def _plain_generation(lm: PreTrainedModel) -> Iterator[None]:
    """Disable the model's own generation settings, which ``generate`` would merge in, and its compiled layers.

    The layers are compiled for training; with the KV cache of transformers, torch would recompile each layer separately.
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
    """Collect the LM head's input, [B, T, D] per call, if there is a value head that needs it."""
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

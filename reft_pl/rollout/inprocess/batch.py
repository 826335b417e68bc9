"""Continuous batching with speculative decoding: finished rows leave at once, and waiting rows take their slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from reft_pl.models.packing import Packing, packed
from reft_pl.rollout.inprocess.cache import PromptCache, SlotCache
from reft_pl.rollout.inprocess.ngram_speculation import NgramDrafts
from reft_pl.rollout.inprocess.token_sampling import DrawParams, draw
from reft_pl.rollout.seeds import uniforms_at
from reft_pl.types import Completion, SampleRequest, StopReason


@dataclass(slots=True, eq=False)
class Prompt:
    """A request and, after its prefill, the location of its keys and the logits and value of its last token."""

    request: SampleRequest
    cache: PromptCache | None = None
    start: int = 0
    logits: Tensor | None = None
    value: Tensor | None = None

    @property
    def length(self) -> int:
        """Return the number of prompt tokens."""
        return len(self.request.prompt_ids)


@dataclass(slots=True, eq=False)
class Row:
    """One completion in progress."""

    prompt: Prompt
    index: int
    sequence: list[int] = field(default_factory=list)  # includes the prompt once the row is admitted
    logprobs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """Return the seed of the row's uniform numbers."""
        return self.prompt.request.seeds[self.index]

    @property
    def written(self) -> int:
        """Return the number of tokens after the prompt."""
        return len(self.sequence) - self.prompt.length

    @property
    def left(self) -> int:
        """Return the number of tokens that may still be sampled."""
        return self.prompt.request.params.max_new_tokens - self.written

    @property
    def cached(self) -> int:
        """Return the number of tokens with keys in the slot: all except the newest."""
        return len(self.sequence) - 1

    @property
    def stop(self) -> StopReason | None:
        """Return why the row has ended; None while it runs."""
        if self.sequence[-1] in self.prompt.request.eos_ids:
            return StopReason.EOS
        return None if self.left else StopReason.LENGTH

    def completion(self, stop: StopReason) -> Completion:
        """Return the finished completion."""
        token_ids, values = tuple(self.sequence[self.prompt.length :]), tuple(self.values) or None
        return Completion(self.prompt.request.id, self.index, token_ids, tuple(self.logprobs), stop, values)


class ContinuousBatch:
    """Waiting rows, and active rows in slots (row i in slot i).

    Args:
        lm: The model; it must be in sampling mode during ``run_until_one_ends``.
        requests: What to sample.
        max_rows: Number of slots.
        prefill_tokens: Maximum number of prompt tokens per prefill pass.
        draft_tokens: Maximum number of drafted tokens per row and step.
        value_head: Maps the LM head's input, [..., D], to values, [..., 1]: the value of each state in which a token is chosen.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        requests: Sequence[SampleRequest],
        max_rows: int,
        prefill_tokens: int,
        draft_tokens: int,
        value_head: nn.Module | None = None,
    ) -> None:
        self.lm = lm
        self.value_head = value_head
        self.device = next(lm.parameters()).device
        self.prefill_tokens = prefill_tokens
        self.draft_tokens = draft_tokens
        self.drafts = NgramDrafts()
        prompts = [Prompt(r) for r in sorted(requests, key=lambda request: len(request.prompt_ids), reverse=True)]
        self.waiting = deque(Row(prompt, index) for prompt in prompts for index in range(len(prompt.request.seeds)))
        self.max_rows = min(max_rows, len(self.waiting))
        self.rows: list[Row] = []
        self.params: DrawParams | None = None  # of the active rows; None after these change
        self.cache: SlotCache | None = None

    @property
    def done(self) -> bool:
        """Return whether every completion has ended."""
        return not self.rows and not self.waiting

    def run_until_one_ends(self) -> list[Completion]:
        """Admit rows and decode until at least one completion ends; return all that ended in that step."""
        ended: list[Completion] = []
        while not ended and not self.done:
            if self._admission_is_due():
                ended += self._admit()
            if self.rows and not ended:
                ended += self._decode()
        return ended

    def _admission_is_due(self) -> bool:
        """Return whether enough slots are free to prefill several prompts at once.

        A small forward pass takes nearly as long as a somewhat larger one.
        """
        free = self.max_rows - len(self.rows)
        return bool(self.waiting) and free >= min(len(self.waiting), max(1, self.max_rows // 8))

    def _admit(self) -> list[Completion]:
        """Move waiting rows into free slots; rows that end with their first token need no slot."""
        free = self.max_rows - len(self.rows)
        admitted = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        for row in admitted:
            row.sequence.extend(row.prompt.request.prompt_ids)
        self._prefill([row.prompt for row in admitted])
        logits = torch.stack([row.prompt.logits for row in admitted if row.prompt.logits is not None])
        values = [row.prompt.value for row in admitted if row.prompt.value is not None]
        params = DrawParams.of([row.prompt.request.params for row in admitted], self.device)
        guesses: list[list[int]] = [[] for _ in admitted]
        self._append_tokens(admitted, guesses, logits, torch.stack(values) if values else None, params)
        ended = []
        for row in admitted:
            if row.stop is not None:
                ended.append(row.completion(row.stop))
                continue
            prefill = row.prompt.cache
            assert prefill is not None
            if self.cache is None:
                self.cache = SlotCache(self.max_rows, prefill)
            self.cache.fit(max(other.cached for other in (*self.rows, row)), len(self.rows))
            self.cache.fill(len(self.rows), prefill, row.prompt.start, row.prompt.length)
            self.rows.append(row)
        still_needed = self.waiting[0].prompt if self.waiting else None
        for row in admitted:
            if row.prompt is not still_needed:
                row.prompt.cache = row.prompt.logits = row.prompt.value = None
        self.params = None
        return ended

    def _prefill(self, prompts: Sequence[Prompt]) -> None:
        """Prefill new prompts, in passes of at most ``prefill_tokens`` tokens."""
        unread: list[Prompt] = []
        for prompt in prompts:
            if prompt.logits is not None or (unread and unread[-1] is prompt):  # samples of a prompt are adjacent
                continue
            if unread and sum(p.length for p in unread) + prompt.length > self.prefill_tokens:
                self._read(unread)
                unread = []
            unread.append(prompt)
        if unread:
            self._read(unread)

    def _read(self, prompts: Sequence[Prompt]) -> None:
        """Run one forward pass over the packed prompts."""
        packing = Packing.of([prompt.length for prompt in prompts], self.device)
        cache = PromptCache(self.lm)
        tokens = [token for prompt in prompts for token in prompt.request.prompt_ids]
        logits, values = self._forward(tokens, packing, cache, logits_to_keep=packing.last)
        start = 0
        for index, prompt in enumerate(prompts):
            prompt.cache, prompt.start, prompt.logits = cache, start, logits[index]
            prompt.value = None if values is None else values[index]
            start += prompt.length
            if self.draft_tokens:
                self.drafts.learn(prompt.request.prompt_ids)

    def _decode(self) -> list[Completion]:
        """Run one decoding step of all active rows, with drafted tokens for rows that have a draft."""
        assert self.cache is not None
        guesses = self._guesses()
        lengths = [1 + len(guess) for guess in guesses]
        self.cache.fit(max(row.cached + n for row, n in zip(self.rows, lengths, strict=True)), len(self.rows))
        packing = Packing.of(lengths, self.device, starts=[row.cached for row in self.rows])
        self.cache.place(packing)
        tokens = [token for row, guess in zip(self.rows, guesses, strict=True) for token in (row.sequence[-1], *guess)]
        logits, values = self._forward(tokens, packing, self.cache)
        if self.params is None:
            self.params = DrawParams.of([row.prompt.request.params for row in self.rows], self.device)
        self._append_tokens(self.rows, guesses, logits, values, self.params.rows(packing.rows))
        return self._retire()

    def _guesses(self) -> list[list[int]]:
        """Draft tokens for each row, at most ``max_rows`` in total, to keep the decoding step small."""
        guesses, room = [], self.max_rows
        for row in self.rows:
            most = min(self.draft_tokens, row.left - 1, room)
            guess = self.drafts.guess(row.sequence, most, row.prompt.request.eos_ids)
            room -= len(guess)
            guesses.append(guess)
        return guesses

    def _forward(self, tokens: Sequence[int], packing: Packing, cache: Cache, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Return logits [N, V] and, with a value head, values [N] at the positions with logits.

        The value head reads the LM head's input, which models do not return, so a forward pre-hook captures it.
        """
        seen: list[Tensor] = []
        head: nn.Module = self.lm.get_output_embeddings()  # type: ignore[no-untyped-call]
        hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0])) if self.value_head is not None else None
        try:
            with packed(packing):
                logits: Tensor = self.lm(
                    input_ids=torch.tensor(tokens, device=self.device)[None],
                    position_ids=packing.positions[None],
                    past_key_values=cache,
                    use_cache=True,
                    **inputs,
                ).logits
        finally:
            if hook is not None:
                hook.remove()
        return logits[0], None if self.value_head is None else self.value_head(seen[-1])[0].squeeze(-1)

    def _append_tokens(
        self,
        rows: Sequence[Row],
        guesses: Sequence[Sequence[int]],
        logits: Tensor,
        values: Tensor | None,
        params: DrawParams,
    ) -> None:
        """Sample the token after each input token; a row keeps its sampled tokens up to and including its first mismatch.

        Args:
            rows: B rows.
            guesses: The drafted tokens that each row read after its newest token.
            logits: [N, V]; the logits of a row's newest token and of its drafted tokens are adjacent.
            values: [N].
            params: Sampling parameters of the N logits.

        Raises:
            FloatingPointError: The policy's logits are not finite.
        """
        places = [(row, row.written + step) for row, guess in zip(rows, guesses, strict=True) for step in range(1 + len(guess))]
        u = torch.from_numpy(uniforms_at([row.seed for row, _ in places], [index for _, index in places]))
        drawn, logprobs = draw(logits, params, u.to(self.device))
        if not bool(logprobs.isfinite().all()):
            raise FloatingPointError("the policy's logits are not finite: its weights are broken")
        tokens, chances = drawn.tolist(), logprobs.tolist()
        worths = None if values is None else values.tolist()
        first = 0
        for row, guess in zip(rows, guesses, strict=True):
            before = len(row.sequence)
            for at, guessed in enumerate((*guess, None), start=first):
                row.sequence.append(tokens[at])
                row.logprobs.append(chances[at])
                if worths is not None:
                    row.values.append(worths[at])
                if tokens[at] != guessed or row.stop is not None:
                    break
            if self.draft_tokens:
                self.drafts.learn(row.sequence, before)
            first += 1 + len(guess)

    def _retire(self) -> list[Completion]:
        """Remove finished rows, and move the last rows into their slots."""
        assert self.cache is not None
        ended = []
        for slot in reversed(range(len(self.rows))):
            row = self.rows[slot]
            if row.stop is None:
                continue
            ended.append(row.completion(row.stop))
            last = self.rows.pop()
            if last is not row:
                self.cache.move(len(self.rows), slot, last.cached)
                self.rows[slot] = last
        if ended:
            self.params = None
        return ended

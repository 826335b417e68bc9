"""Continuous batching: rows leave the moment they end, waiting rows take their places, and some steps write several tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from reft_pl.rollout.inprocess.cache import PromptCache, SlotCache
from reft_pl.rollout.inprocess.ngram_speculation import NgramDrafts
from reft_pl.rollout.inprocess.packing import Packing, packed
from reft_pl.rollout.inprocess.token_sampling import DrawParams, draw
from reft_pl.rollout.seeds import uniforms_at
from reft_pl.types import Completion, SampleRequest, StopReason


@dataclass(slots=True, eq=False)
class Prompt:
    """A request, and after its prefill where its keys lie and what comes first after it."""

    request: SampleRequest
    cache: PromptCache | None = None
    start: int = 0
    logits: Tensor | None = None
    value: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of prompt tokens."""
        return len(self.request.prompt_ids)


@dataclass(slots=True, eq=False)
class Row:
    """One completion being written."""

    prompt: Prompt
    index: int
    sequence: list[int] = field(default_factory=list)  # with the prompt, from its admission on
    logprobs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """What its uniform numbers are counted from."""
        return self.prompt.request.seeds[self.index]

    @property
    def written(self) -> int:
        """Tokens after the prompt."""
        return len(self.sequence) - self.prompt.length

    @property
    def left(self) -> int:
        """Tokens that may still be written."""
        return self.prompt.request.params.max_new_tokens - self.written

    @property
    def cached(self) -> int:
        """Tokens whose keys are in the slot: all but the newest."""
        return len(self.sequence) - 1

    @property
    def stop(self) -> StopReason | None:
        """Why it has ended, if it has."""
        if self.sequence[-1] in self.prompt.request.eos_ids:
            return StopReason.EOS
        return None if self.left else StopReason.LENGTH

    def completion(self, stop: StopReason) -> Completion:
        """What the caller gets to see."""
        token_ids, values = tuple(self.sequence[self.prompt.length :]), tuple(self.values) or None
        return Completion(self.prompt.request.id, self.index, token_ids, tuple(self.logprobs), stop, values)


class ContinuousBatch:
    """Rows that wait, and rows in slots (row i in slot i).

    Args:
        lm: The model, in sampling mode whenever ``run_until_one_ends`` is called.
        requests: What is to be written.
        max_rows: Number of slots.
        prefill_tokens: Prompt tokens that are read in one forward pass.
        draft_tokens: Tokens that are guessed ahead of a row, at most.
        value_head: Makes a value, [..., 1], of what the LM head sees, [..., D]: of each state in which a token is chosen.
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
        self.params: DrawParams | None = None  # of the rows in slots; None when they have changed
        self.cache: SlotCache | None = None

    @property
    def done(self) -> bool:
        """Whether every completion has ended."""
        return not self.rows and not self.waiting

    def run_until_one_ends(self) -> list[Completion]:
        """Admit rows and decode until at least one completion has ended; those that ended together."""
        ended: list[Completion] = []
        while not ended and not self.done:
            if self._admission_is_due():
                ended += self._admit()
            if self.rows and not ended:
                ended += self._decode()
        return ended

    def _admission_is_due(self) -> bool:
        """Prompts are read several at once, since a forward pass costs much the same for few tokens as for some more."""
        free = self.max_rows - len(self.rows)
        return bool(self.waiting) and free >= min(len(self.waiting), max(1, self.max_rows // 8))

    def _admit(self) -> list[Completion]:
        """Give the free slots to waiting rows; those that end with their first token need none."""
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
        """Read the prompts that have not been read, in passes of at most ``prefill_tokens`` tokens."""
        unread: list[Prompt] = []
        for prompt in prompts:
            if prompt.logits is not None or (unread and unread[-1] is prompt):  # samples of a prompt stand together
                continue
            if unread and sum(p.length for p in unread) + prompt.length > self.prefill_tokens:
                self._read(unread)
                unread = []
            unread.append(prompt)
        if unread:
            self._read(unread)

    def _read(self, prompts: Sequence[Prompt]) -> None:
        """One forward pass over the packed prompts."""
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
        """One step of all rows in slots, of one token or, where a row's next ones can be guessed, of several."""
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
        """What may come next in each row, no more in all than there are slots: a step is to stay a small one."""
        guesses, room = [], self.max_rows
        for row in self.rows:
            most = min(self.draft_tokens, row.left - 1, room)
            guess = self.drafts.guess(row.sequence, most, row.prompt.request.eos_ids)
            room -= len(guess)
            guesses.append(guess)
        return guesses

    def _forward(self, tokens: Sequence[int], packing: Packing, cache: Cache, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Logits [N, V] and, with a value head, values [N], where logits are asked for.

        Models do not return what their LM head sees, which is what the value head reads too: a hook looks at it.
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
        """Draw what comes after each token that was read: a row keeps what it has drawn up to the first wrong guess.

        Args:
            rows: B of them.
            guesses: What each of them read after its newest token.
            logits: [N, V], side by side those of a row's newest token and of its guesses.
            values: [N].
            params: Of the N.
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
        """Take out the rows that have ended; the last rows move into the gaps."""
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

"""Compute a prompt once for all responses to it: the token layout and its attention.

The samples of a question repeat its prompt. A micro-batch therefore becomes one row: every distinct prompt once, then all
responses, whose positions go on from their prompt's end. Attention has two parts: each prompt on itself, and each response on
its prompt and on itself. All other layers see every token once, without padding.

Source: Prefix Grouper, arXiv 2506.05433.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from reft_pl.models.packing import Packing, packed_attention
from reft_pl.types import TokenBatch

ATTENTION_NAME = "reft_pl_shared_prompts"


@dataclass(slots=True, eq=False)
class SharedPrompts:
    """One row of N tokens with G distinct prompts, followed by R responses.

    Attributes:
        input_ids: [1, N] int64.
        position_ids: [1, N] int64.
        place: [B, T] index in the row of each real token of the batch; 0 at padding and in rows without actions.
        prompts: Layout of the prompts, which come first.
        responses: Layout of the responses among themselves.
        prompt_of: [R] index of each response's prompt.
    """

    input_ids: Tensor
    position_ids: Tensor
    place: Tensor
    prompts: Packing
    responses: Packing
    prompt_of: Tensor
    _masks: dict[int, Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, batch: TokenBatch) -> SharedPrompts | None:
        """Lay out a batch; None if no two rows share a prompt, so that there is nothing to gain."""
        rows = prompt_groups(batch)
        members = [row for group in rows for row in group]
        if len(rows) == len(members):
            return None
        ids, starts, firsts, ends = (tensor.tolist() for tensor in (batch.input_ids, *bounds(batch)))
        prompts = [ids[group[0]][starts[group[0]] : firsts[group[0]] + 1] for group in rows]
        responses = [ids[row][firsts[row] + 1 : ends[row]] for row in members]
        device = batch.input_ids.device
        layouts = [Packing.of([len(part) for part in parts], device) for parts in (prompts, responses)]
        prompt_of = [index for index, group in enumerate(rows) for _ in group]
        positions = [position for part in prompts for position in range(len(part))]
        positions += [len(prompts[g]) + t for g, part in zip(prompt_of, responses, strict=True) for t in range(len(part))]
        place = torch.zeros(batch.input_ids.shape, dtype=torch.int64)
        ends_of_prompts, ends_of_responses = _ends(prompts, 0), _ends(responses, sum(map(len, prompts)))
        for row, group, response_end in zip(members, prompt_of, ends_of_responses, strict=True):
            start, first, end = starts[row], firsts[row], ends[row]
            place[row, start : first + 1] = torch.arange(first + 1 - start) + ends_of_prompts[group] - (first + 1 - start)
            place[row, first + 1 : end] = torch.arange(end - first - 1) + response_end - (end - first - 1)
        tokens = [token for part in (*prompts, *responses) for token in part]
        return cls(
            torch.tensor([tokens], device=device), torch.tensor([positions], device=device), place.to(device),
            *layouts, torch.tensor(prompt_of, device=device),
        )  # fmt: skip

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int = 0) -> Tensor:
        """Compute attention of every token over its prompt and the earlier tokens of its response.

        Args:
            query: [1, H, N, D].
            key: [1, K, N, D] with K key heads, H a multiple of K.
            value: [1, K, N, any width].
            scaling: Factor on the attention scores.
            window: Sliding window in tokens, including the query's own; 0 for full attention.

        Returns:
            [1, N, H, width of a value].
        """
        n = len(self.prompts.rows)
        first = packed_attention(query[:, :, :n], key[:, :, :n], value[:, :, :n], scaling, self.prompts, window)
        own = self.responses.padded + n
        seen = torch.cat([self.prompts.padded[self.prompt_of], own], dim=1)
        q = query[0][:, own].transpose(0, 1)
        k, v = (states[0][:, seen].transpose(0, 1) for states in (key, value))
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        output = scaled_dot_product_attention(q, k, v, attn_mask=self.mask(window), scale=scaling)
        return torch.cat([first, output.transpose(1, 2).flatten(0, 1)[self.responses.packed][None]], dim=1)

    def mask(self, window: int = 0) -> Tensor:
        """Return which prompt and response tokens each token of a response attends to, [R, 1, S, P + S] bool."""
        if window not in self._masks:  # shared by all layers with the same window
            longest, size = self.prompts.padded.shape[1], self.responses.padded.shape[1]
            device = self.prompt_of.device
            lengths = torch.bincount(self.prompts.rows, minlength=len(self.prompts.padded))[self.prompt_of][:, None, None]
            prompt, own = torch.arange(longest, device=device), torch.arange(size, device=device)
            # Distance of key and query in their sequence; of padding it is negative.
            to_prompt = torch.where(prompt < lengths, lengths + own[:, None] - prompt, -1)
            to_own = (own[:, None] - own).expand(len(lengths), -1, -1)
            distance = torch.cat([to_prompt, to_own], dim=2)
            seen = distance >= 0
            self._masks[window] = (seen & (distance < window) if window else seen)[:, None]
        return self._masks[window]


def prompt_groups(batch: TokenBatch) -> list[list[int]]:
    """Return the rows with actions, grouped by prompt in the order of their first rows.

    A prompt is everything up to the state of the first action.
    """
    if not batch.input_ids.numel():
        return []
    groups: dict[bytes, list[int]] = {}
    ids, acts = batch.input_ids.cpu().numpy(), batch.action_mask.any(1).tolist()
    starts, firsts, _ = (bound.tolist() for bound in bounds(batch))
    for row, (start, first) in enumerate(zip(starts, firsts, strict=True)):
        if acts[row]:
            groups.setdefault(ids[row, start : first + 1].tobytes(), []).append(row)
    return list(groups.values())


def bounds(batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first token, the first action and the end of each row, [B] each; a row without actions has action 0."""
    start = batch.attention_mask.int().argmax(1)
    return start, batch.action_mask.int().argmax(1), start + batch.attention_mask.sum(1)


def _ends(parts: Sequence[Sequence[int]], start: int) -> list[int]:
    ends = []
    for part in parts:
        start += len(part)
        ends.append(start)
    return ends


_current: list[SharedPrompts] = []


def lay_out(layout: SharedPrompts) -> None:
    """Set the layout of the next forward passes; it stays until the next call, since a backward pass may recompute layers."""
    _current[:] = [layout]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function registered with ``transformers`` as ``ATTENTION_NAME``."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attend(query.to(key.dtype), key, value, scaling, sliding_window or 0), None


@torch.compiler.disable(reason="its sizes differ between layouts")
def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int) -> Tensor:
    return _current[0].attend(query, key, value, scaling, window)


AttentionInterface.register(ATTENTION_NAME, attention)

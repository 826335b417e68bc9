"""Compute a prompt once for all responses to it: the token layout and its attention.

The samples of a question repeat its prompt. A micro-batch therefore becomes one row: every distinct prompt once, then all
responses, with positions that continue those of their prompt. Attention has two parts: each prompt on itself, and each
response on its prompt and on itself. All other layers see every token once, without padding.

Source: Prefix Grouper, arXiv 2506.05433.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from reft_pl.models.packing import Packing
from reft_pl.types import TokenBatch

FUSED_NAME = "reft_pl_shared_prompts"
EAGER_NAME = "reft_pl_shared_prompts_eager"


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
    _masks: dict[tuple[bool, int], Tensor] = field(default_factory=dict, init=False)

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
        prompt_layout, response_layout = (Packing.of([len(part) for part in parts], device) for parts in (prompts, responses))
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
            torch.tensor([tokens], device=device),
            torch.tensor([positions], device=device),
            place.to(device),
            prompt_layout,
            response_layout,
            torch.tensor(prompt_of, device=device),
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int, eager: bool) -> Tensor:
        """Compute attention of every token over its prompt and the earlier tokens of its response.

        Args:
            query: [1, H, N, D].
            key: [1, K, N, D] with K key heads, H a multiple of K.
            value: [1, K, N, any width].
            scaling: Factor on the attention scores.
            window: Sliding window in tokens, including the query's own; 0 for full attention.
            eager: Use matrix products, which are faster on CPUs and keep all attention weights for the backward pass, instead
                of a fused kernel.

        Returns:
            [1, N, H, width of a value].
        """
        kernel = matrix_attention if eager else fused_attention
        n = len(self.prompts.rows)
        states = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # [N, heads, D]
        q, k, v = (self.prompts.pad(tensor[:n]) for tensor in states)
        own_q, own_k, own_v = (self.responses.pad(tensor[n:]) for tensor in states)
        of_prompts = kernel(q, k, v, self.mask(False, window), scaling)
        seen_k, seen_v = (torch.cat([self._repeated(of_prompt), own], dim=2) for of_prompt, own in ((k, own_k), (v, own_v)))
        of_responses = kernel(own_q, seen_k, seen_v, self.mask(True, window), scaling)
        parts = [self.prompts.unpad(of_prompts), self.responses.unpad(of_responses)]
        return torch.cat(parts)[None]

    def _repeated(self, of_prompts: Tensor) -> Tensor:
        """Repeat each prompt's states for its responses, [G, ...] to [R, ...]."""
        counts = torch.bincount(self.prompt_of).tolist()
        return torch.cat([states.expand(n, -1, -1, -1) for states, n in zip(torch.split(of_prompts, 1), counts, strict=True)])

    def mask(self, of_responses: bool, window: int = 0) -> Tensor:
        """Return which tokens each token attends to, bool.

        Returns:
            Of prompts [1, 1, P, P]; of responses [R, 1, S, P + S], over the prompt and then the response.
        """
        if (of_responses, window) not in self._masks:  # shared by all layers with the same window
            part = self.responses if of_responses else self.prompts
            own = torch.arange(part.padded.shape[1], device=self.prompt_of.device)
            distance = (own[:, None] - own)[None]  # of query and key in their sequence; negative where the key comes later
            if of_responses:
                prompt = torch.arange(self.prompts.padded.shape[1], device=own.device)
                lengths = torch.bincount(self.prompts.rows)[self.prompt_of][:, None, None]
                to_prompt = torch.where(prompt < lengths, lengths + own[:, None] - prompt, -1)  # -1 at padding
                distance = torch.cat([to_prompt, distance.expand(len(lengths), -1, -1)], dim=2)
            seen = distance >= 0
            self._masks[of_responses, window] = (seen & (distance < window) if window else seen)[:, None]
        return self._masks[of_responses, window]


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Compute masked attention with torch's fused kernel.

    Args:
        query: [B, H, T, D].
        key: [B, K, L, D] with K key heads, H a multiple of K.
        value: [B, K, L, any width].
        mask: True where a query attends, [B or 1, 1, T, L].
        scaling: Factor on the attention scores.

    Returns:
        [B, H, T, width of a value].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)


def matrix_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Compute what ``fused_attention`` does with two batched matrix products and a float32 softmax.

    Queries that share a key head become the rows of one matrix.
    """
    batch, heads, length, width = query.shape
    kv_heads = key.shape[1]
    q = (query * scaling).reshape(batch, kv_heads, -1, width)
    hidden = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
    scores = (q @ key.transpose(2, 3)).view(batch, heads, length, -1) + hidden
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights.view(batch, kv_heads, -1, weights.shape[-1]) @ value).view(batch, heads, length, -1)


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
    eager: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function registered with ``transformers`` as ``FUSED_NAME`` and, with ``eager``, as ``EAGER_NAME``."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attend(query.to(key.dtype), key, value, scaling, sliding_window or 0, eager), None


@torch.compiler.disable  # type: ignore[untyped-decorator]  # sizes differ between layouts
def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int, eager: bool) -> Tensor:
    return _current[0].attend(query, key, value, scaling, window, eager)


AttentionInterface.register(FUSED_NAME, attention)
AttentionInterface.register(EAGER_NAME, partial(attention, eager=True))

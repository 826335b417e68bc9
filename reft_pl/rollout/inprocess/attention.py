"""Attention for sampling: prefill over packed prompts without padding, and decoding over a slot cache.

It is registered with transformers' ``AttentionInterface``, so it works with any model that uses this interface. The compiler
sees a single operator for every token layout, so the same compiled layers serve prefill and decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from reft_pl.errors import UserError
from reft_pl.models.packing import Packing, current_packing
from reft_pl.rollout.inprocess.acceleration.native_attention import has_native_attention, native_attention
from reft_pl.rollout.inprocess.codegen_attention import has_own_attention, replaced

ATTENTION_NAME = "reft_pl_rollout"
NATIVE_ATTENTION_NAME = "reft_pl_rollout_native"

# Attention features that are not implemented here. Ignoring them silently would change the samples.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


def packed_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, packing: Packing, window: int = 0) -> Tensor:
    """Compute causal attention within each sequence of a packed row; internally, pad the sequences to the longest.

    Args:
        query: [1, H, N, D].
        key: [1, K, N, D] with K key heads, H a multiple of K.
        value: Same shape as ``key``.
        scaling: Factor on the attention scores.
        packing: Layout of the N tokens.
        window: Sliding window in tokens, including the query's own; 0 for full causal attention.

    Returns:
        [1, N, H, D].
    """
    groups = query.shape[1] // key.shape[1]
    # Padding is on the right, where causal queries never attend.
    q, k, v = (states[0][:, packing.padded].transpose(0, 1) for states in (query, key, value))
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if window and window < q.shape[2]:
        seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril().triu(1 - window)
        output = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling)
    else:
        output = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return output.transpose(1, 2).flatten(0, 1)[packing.packed][None]


def decode_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, packing: Packing, window: int = 0) -> Tensor:
    """Compute attention of each row's newest tokens over its cached keys, as two batched matrix products.

    Queries that share a key head become the rows of one matrix, so keys and values are neither repeated nor copied.

    Args:
        query: [1, H, N, D].
        key: [S, K, L, D], row i in slot i; ideally a view of memory that is contiguous along L.
        value: [S, K, L, any width].
        scaling: Factor on the attention scores.
        packing: Layout of the N tokens. Their own keys and values are already in the slots.
        window: As for ``packed_attention``.

    Returns:
        [1, N, H, D].
    """
    batch, steps = packing.padded.shape
    kv_heads, length = key.shape[1:3]
    q = (query[0] * scaling)[:, packing.padded].transpose(0, 1).reshape(batch * kv_heads, -1, key.shape[3])
    scores = torch.bmm(q, key[:batch].transpose(2, 3).flatten(0, 1)).view(batch, -1, steps, length)
    weights = (scores + packing.mask(length, scores.dtype, window)).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    output = torch.bmm(weights.view(batch * kv_heads, -1, length), value[:batch].flatten(0, 1))
    return output.view(batch, query.shape[1], steps, value.shape[3]).transpose(1, 2).flatten(0, 1)[packing.packed][None]


def rollout_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    native: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function registered as ``ATTENTION_NAME``; the innermost ``packing.packed`` block defines the token layout.

    Under ``NATIVE_ATTENTION_NAME``, decoding uses ``native_attention`` if it supports the inputs.
    """
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise UserError(f"the in-process sampler cannot run this model: its attention needs `{name}`; choose another model")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return torch.ops.reft_pl.rollout_attention(query.to(key.dtype), key, value, scaling, sliding_window or 0, native), None


_operators = torch.library.Library("reft_pl", "FRAGMENT")  # type: ignore[no-untyped-call]
_operators.define(  # type: ignore[no-untyped-call]
    "rollout_attention(Tensor query, Tensor key, Tensor value, float scaling, int window, bool native) -> Tensor"
)


@torch.library.impl(_operators, "rollout_attention", "CompositeExplicitAutograd")
def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int, native: bool) -> Tensor:
    packing = current_packing()
    if not packing.decoding:
        return packed_attention(query, key, value, scaling, packing, window)
    window = window if window < key.shape[2] else 0
    if native and not window and has_native_attention(query, key, value):
        return native_attention(query, key, value, scaling, packing.rows, packing.positions)
    return decode_attention(query, key, value, scaling, packing, window)


@torch.library.impl(_operators, "rollout_attention", "Meta")
def _shape(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int, native: bool) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


_native_rollout_attention = partial(rollout_attention, native=True)

AttentionInterface.register(ATTENTION_NAME, rollout_attention)
AttentionInterface.register(NATIVE_ATTENTION_NAME, _native_rollout_attention)


@contextmanager
def sampling_attention(lm: PreTrainedModel, native: bool = False) -> Iterator[None]:
    """Switch ``lm`` to this module's attention within the block, and restore its own attention afterwards.

    Args:
        lm: The model.
        native: Decode with attention code compiled for the model.

    Raises:
        UserError: The model's attention cannot be replaced.
    """
    if has_own_attention(lm):
        with replaced(lm, _native_rollout_attention if native else rollout_attention):
            yield
        return
    own, name = lm.config._attn_implementation, NATIVE_ATTENTION_NAME if native else ATTENTION_NAME
    lm.set_attn_implementation(name)
    try:
        if lm.config._attn_implementation != name:
            raise UserError(
                f"the in-process sampler cannot run {type(lm).__name__}: its attention cannot be replaced; choose another model"
            )
        yield
    finally:
        lm.set_attn_implementation(own)

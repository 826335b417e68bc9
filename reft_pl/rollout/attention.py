"""Attention for sampling: packed prompts without padding, and one query a row over a static cache.

Registered with transformers' ``AttentionInterface``, so that any model which looks its attention up there can use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from reft_pl.errors import UserError
from reft_pl.rollout.native_attention import has_native_attention, native_attention
from reft_pl.rollout.own_attention import has_own_attention, replaced

ATTENTION_NAME = "reft_pl_rollout"
NATIVE_ATTENTION_NAME = "reft_pl_rollout_native"

# What a model may ask of its attention and this one does not do: to leave it out in silence would change the samples.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True, slots=True)
class Packing:
    """Where B sequences of ``lengths`` lie in one packed row of N tokens.

    ``padded`` [B, T] holds the packed index of each token (0 in the padding on the right), ``packed`` [N] the flat index
    b * T + t of each packed token.
    """

    lengths: tuple[int, ...]
    padded: Tensor
    packed: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Packing:
        """Lay the sequences out one after the other."""
        sizes = torch.tensor(lengths)
        columns = torch.arange(max(lengths))[None, :]
        real = columns < sizes[:, None]
        padded = torch.where(real, columns + (sizes.cumsum(0) - sizes)[:, None], 0)
        return cls(tuple(lengths), padded.to(device), real.flatten().nonzero().squeeze(-1).to(device))

    @property
    def positions(self) -> Tensor:
        """Each packed token's position in its own sequence, [N]."""
        return self.packed % self.padded.shape[1]

    @property
    def last(self) -> Tensor:
        """The packed index of each sequence's last token, [B]."""
        return (torch.tensor(self.lengths).cumsum(0) - 1).to(self.padded.device)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, packing: Packing) -> Tensor:
    """Causal attention within each sequence of a packed row; only here are the sequences padded, to the longest of them.

    Args:
        query: [1, H, N, D].
        key: [1, K, N, D] with K key heads, H a multiple of K.
        value: As ``key``.
        scaling: Factor on the scores.
        packing: Of the N tokens.

    Returns:
        [1, N, H, D].
    """
    groups = query.shape[1] // key.shape[1]
    # Padding stands on the right, where a causal query never looks.
    q, k, v = (states[0][:, packing.padded].transpose(0, 1) for states in (query, key, value))
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    output = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return output.transpose(1, 2).flatten(0, 1)[packing.packed][None]


def decode_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor) -> Tensor:
    """Attention of one new token a row over its cached keys, as two batched matrix products.

    The queries that share a key head become the rows of one matrix, so that keys and values are neither repeated nor copied.

    Args:
        query: [B, H, 1, D].
        key: [B, K, L, D], best a view of memory that is contiguous along L.
        value: [B, K, L, D].
        scaling: Factor on the scores.
        mask: Added to the scores, [B, 1, 1, L].

    Returns:
        [B, 1, H, D].
    """
    batch, heads, _, width = query.shape
    kv_heads, length = key.shape[1:3]
    q = (query * scaling).view(batch * kv_heads, heads // kv_heads, width)
    scores = torch.bmm(q, key.transpose(2, 3).flatten(0, 1)).view(batch, kv_heads, -1, length)
    weights = (scores + mask).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    output = torch.bmm(weights.flatten(0, 1), value.flatten(0, 1))
    return output.view(batch, 1, heads, width)


def rollout_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packing: Packing | None = None,
    native: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function under ``ATTENTION_NAME``: prefill when there is a ``packing``, else one decoding step.

    Under ``NATIVE_ATTENTION_NAME`` a decoding step takes the code of ``native_attention``, where there is some.
    """
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise UserError(f"the in-process sampler cannot run this model: its attention needs `{name}`")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query = query.to(key.dtype)
    if packing is not None:
        return packed_attention(query, key, value, scaling, packing), None
    if attention_mask is None or query.shape[2] != 1:
        raise UserError("the in-process sampler cannot run this model: it does not hand keyword arguments to its attention")
    if native and has_native_attention(query, key, value):
        return native_attention(query, key, value, scaling, attention_mask), None
    return decode_attention(query, key, value, scaling, attention_mask), None


_native_rollout_attention = partial(rollout_attention, native=True)

AttentionInterface.register(ATTENTION_NAME, rollout_attention)
AttentionInterface.register(NATIVE_ATTENTION_NAME, _native_rollout_attention)


@contextmanager
def sampling_attention(lm: PreTrainedModel, native: bool = False) -> Iterator[None]:
    """Let ``lm`` use the attention of this module, and give it back its own at the end.

    Args:
        lm: The model.
        native: Decode with code that is compiled for it.

    Raises:
        UserError: the model's code does not let its attention be replaced.
    """
    if has_own_attention(lm):
        with replaced(lm, _native_rollout_attention if native else rollout_attention):
            yield
        return
    own, name = lm.config._attn_implementation, NATIVE_ATTENTION_NAME if native else ATTENTION_NAME
    lm.set_attn_implementation(name)
    try:
        if lm.config._attn_implementation != name:
            raise UserError(f"the in-process sampler cannot run {type(lm).__name__}: its attention cannot be replaced")
        yield
    finally:
        lm.set_attn_implementation(own)

"""Attention of a decoding step in one pass over keys and values, compiled for the model at hand (``decode_attention.cpp``).

Batched matrix products read a row's whole room, keys and values in calls of their own; with one query a row they are over
sooner than they are set up. Reading what has been written, once, is all that is left here.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

LANES = 16
"""Numbers that are worked on side by side, as the source has it: head widths are multiples of it."""

_NUMBERS = {torch.float32: "float", torch.bfloat16: "uint16_t"}

# Beyond what a processor's registers hold nothing is gained.
_MOST_GROUPS, _WIDEST = 16, 256

_WIDE_VECTORS = ("-mprefer-vector-width=512",) if platform.machine().lower() in {"x86_64", "amd64"} else ()
_FLAGS = ("-O3", "-ffp-contract=fast", *_WIDE_VECTORS)


def has_native_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether there is code for these: on the CPU, in float32 or bfloat16, with heads of a common width.

    Args:
        query: [B, H, 1, D].
        key: [B, K, L, D].
        value: As ``key``, or there is none.
    """
    heads, _, width = query.shape[1:]
    return (
        query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype
        and key.shape == value.shape
        and width == key.shape[3]
        and query.dtype in _NUMBERS
        and width % LANES == 0
        and width <= _WIDEST
        and heads // key.shape[1] <= _MOST_GROUPS
    )


def native_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor) -> Tensor:
    """As ``attention.decode_attention``, of what ``has_native_attention``; no gradient.

    Args:
        query: [B, H, 1, D].
        key: [B, K, L, D].
        value: As ``key``.
        scaling: Factor on the scores.
        mask: Added to the scores, [B, 1, 1, L]; what is -inf up to the end of a row is not read.

    Returns:
        [B, 1, H, D].
    """
    output: Tensor = torch.ops.reft_pl.decode_attention(query, key, value, scaling, mask)
    return output


_operators = torch.library.Library("reft_pl", "FRAGMENT")  # type: ignore[no-untyped-call]
_operators.define(  # type: ignore[no-untyped-call]
    "decode_attention(Tensor query, Tensor key, Tensor value, float scaling, Tensor mask) -> Tensor"
)


@torch.library.impl(_operators, "decode_attention", "CPU")
def _run(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor) -> Tensor:
    batch, heads, _, width = query.shape
    kv_heads, room = key.shape[1:3]
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    mask = mask.to(query.dtype).expand(batch, 1, 1, room).contiguous()
    output = query.new_empty(batch, 1, heads, width)
    code = _code(query.dtype, heads // kv_heads, width)
    code(*(t.data_ptr() for t in (query, key, value, mask, output)), batch, kv_heads, room, scaling)
    return output


@torch.library.impl(_operators, "decode_attention", "Meta")
def _shape(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor) -> Tensor:
    return query.new_empty(query.shape[0], 1, query.shape[1], query.shape[3])


@cache
def _code(dtype: torch.dtype, group: int, width: int) -> Any:
    """The compiled function, which torch's compiler keeps on disk beside its own."""
    from torch._inductor.codecache import CppCodeCache  # noqa: PLC0415 (a second, which only compiled models take)

    source = files("reft_pl.rollout").joinpath("decode_attention.cpp").read_text(encoding="utf-8")
    named = f"#define NUMBER {_NUMBERS[dtype]}\n#define GROUP {group}\n#define WIDTH {width}\n"
    function = CppCodeCache.load("#include <cstdint>\n" + named + source, extra_flags=_FLAGS).decode_attention
    function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 3 + [ctypes.c_float]
    function.restype = None
    return function

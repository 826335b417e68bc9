"""Attention of a decoding step in one pass over keys and values, compiled for the model at hand (``decode_attention.cpp``).

Batched matrix products read a row's whole room, keys and values in calls of their own; with a query or two a row they are
over sooner than they are set up. Reading what has been written, once, is all that is left here.
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
        query: [1, H, N, D].
        key: [S, K, L, D].
        value: As ``key``, or there is none.
    """
    heads, width = query.shape[1], query.shape[3]
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


def native_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, rows: Tensor, positions: Tensor) -> Tensor:
    """As ``attention.decode_attention``, of what ``has_native_attention``; no gradient.

    Args:
        query: [1, H, N, D].
        key: [S, K, L, D].
        value: As ``key``.
        scaling: Factor on the scores.
        rows: The slot of each token, those of a slot side by side, [N] int64.
        positions: How many tokens of its slot stand before each token, [N] int64.

    Returns:
        [1, N, H, D].
    """
    heads, tokens, width = query.shape[1:]
    kv_heads, room = key.shape[1:3]
    query, key, value = query.transpose(1, 2).contiguous(), key.contiguous(), value.contiguous()
    output = query.new_empty(1, tokens, heads, width)
    code = _code(query.dtype, heads // kv_heads, width)
    code(*(t.data_ptr() for t in (query, key, value, rows, positions, output)), tokens, kv_heads, room, scaling)
    return output


@cache
def _code(dtype: torch.dtype, group: int, width: int) -> Any:
    """The compiled function, which torch's compiler keeps on disk beside its own."""
    from torch._inductor.codecache import CppCodeCache  # noqa: PLC0415 (a second, which only compiled models take)

    source = files("reft_pl.rollout.inprocess.acceleration").joinpath("decode_attention.cpp").read_text(encoding="utf-8")
    named = f"#define NUMBER {_NUMBERS[dtype]}\n#define GROUP {group}\n#define WIDTH {width}\n"
    function = CppCodeCache.load("#include <cstdint>\n" + named + source, extra_flags=_FLAGS).decode_attention
    function.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_int64] * 3 + [ctypes.c_float]
    function.restype = None
    return function

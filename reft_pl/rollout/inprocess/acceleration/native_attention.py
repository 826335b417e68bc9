"""Decoding attention in one pass over keys and values, compiled for the model at hand (``decode_attention.cpp``).

Batched matrix products read a row's whole slot, in separate calls for keys and values, and with one or two queries per row
their setup takes longer than the arithmetic. This code reads only the tokens written so far, once.
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
"""SIMD lanes in the C++ source; head widths must be multiples of it."""

_NUMBERS = {torch.float32: "float", torch.bfloat16: "uint16_t"}

# Larger heads exceed the processor's registers, so the code is no faster.
_MOST_GROUPS, _WIDEST = 16, 256

_WIDE_VECTORS = ("-mprefer-vector-width=512",) if platform.machine().lower() in {"x86_64", "amd64"} else ()
_FLAGS = ("-O3", "-ffp-contract=fast", *_WIDE_VECTORS)


def has_native_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the code supports these inputs: on the CPU, in float32 or bfloat16, with a supported head width.

    Args:
        query: [1, H, N, D].
        key: [S, K, L, D].
        value: [S, K, L, D]; other shapes are unsupported.
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
    """Compute ``attention.decode_attention`` for inputs that ``has_native_attention`` accepts, without gradient.

    Args:
        query: [1, H, N, D].
        key: [S, K, L, D].
        value: Same shape as ``key``.
        scaling: Factor on the attention scores.
        rows: Slot of each token, [N] int64; the tokens of a slot are adjacent.
        positions: Number of tokens before each token in its slot, [N] int64.

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
    """Compile the function; torch caches the result on disk."""
    from torch._inductor.codecache import CppCodeCache  # noqa: PLC0415 (takes a second; only compiled models need it)

    source = files("reft_pl.rollout.inprocess.acceleration").joinpath("decode_attention.cpp").read_text(encoding="utf-8")
    named = f"#define NUMBER {_NUMBERS[dtype]}\n#define GROUP {group}\n#define WIDTH {width}\n"
    function = CppCodeCache.load("#include <cstdint>\n" + named + source, extra_flags=_FLAGS).decode_attention
    function.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_int64] * 3 + [ctypes.c_float]
    function.restype = None
    return function

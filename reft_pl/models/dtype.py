"""Choose the dtype in which this machine computes fastest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

Dtype = Literal["bfloat16", "float32"]

FAST = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""CPU features for bfloat16 multiplication on x86 and Arm, as torch names them."""


def fastest_dtype() -> Dtype:
    """Return bfloat16 if this machine multiplies it in hardware, else float32.

    Without hardware support bfloat16 is emulated: on a CPU with only AVX2, square matrix products took a hundred times as long
    as in float32 (``docs/benchmarks.md``).
    """
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if any(_capabilities().get(name) for name in FAST) else "float32"


def _capabilities() -> Mapping[str, Any]:
    """Return the CPU's features; older versions of torch report none, which selects float32."""
    reported: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return reported

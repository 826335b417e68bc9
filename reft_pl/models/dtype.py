"""Which number format a machine computes in fastest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

NumberFormat = Literal["bfloat16", "float32"]

FAST = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""Instructions for products of bfloat16, x86's and Arm's, as torch names them."""


def fast_format() -> NumberFormat:
    """bfloat16 where this machine has instructions that multiply it, else float32.

    Without them bfloat16 is multiplied in software: on a processor with AVX2 alone square products took a hundred times as
    long as in float32 (``docs/benchmarks.md``).
    """
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if any(_capabilities().get(name) for name in FAST) else "float32"


def _capabilities() -> Mapping[str, Any]:
    """Of the processor; an older torch tells none, and float32 is the safe choice then."""
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return told

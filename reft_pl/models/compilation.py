"""Compiled transformer layers: norms, rotations, activations and their gradients in a few fused kernels instead of dozens."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from reft_pl.errors import UserError


def transformer_layers(network: nn.Module) -> list[nn.Module]:
    """The modules that transformers marks as its layers, in their order; none where an architecture has no such marks."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


CASES = 64
"""Pieces of code that the compiled layers of a process may have together: with gradient or without, for one row or more, ..."""

ACTIVATIONS = 0.4
"""Part of what layers would keep for the backward pass that compiled ones keep, at the sizes that are compiled first.

Torch chooses what costs least to compute again. On two cores no time was measured to be lost by it (docs/log.md); on a
GPU nothing was measured.
"""


def compile_layers(network: nn.Module) -> None:
    """Let every transformer layer be compiled the first time that it is used, for any number of rows and tokens.

    All layers share their code, so that it takes as long for thirty as for one. Where the machine lacks what compiling for the
    CPU takes, that is said, and the layers run as they are.

    Raises:
        UserError: the architecture has no layers that are marked as such.
    """
    layers = transformer_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no layers that can be compiled: set policy.compile to false.")
    lacking = None if torch.cuda.is_available() else _lacking()
    if lacking is not None:
        rank_zero_warn(f"policy.compile is on and there is no {lacking} here: going on without, more slowly")
        return
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, CASES)  # beyond it torch goes on uncompiled, almost in silence
    config.optimize_ddp = False  # it would cut each layer's code to pieces, and a piece a layer leaves room enough for overlap
    kept = torch._functorch.config
    kept.activation_memory_budget = min(kept.activation_memory_budget, ACTIVATIONS)
    for layer in layers:
        layer.compile(dynamic=True)


def compiled_layers(network: nn.Module) -> list[nn.Module]:
    """The layers in which ``compile_layers`` was at work, in their order; none where it was not."""
    return [layer for layer in transformer_layers(network) if layer._compiled_call_impl is not None]


def _lacking() -> str | None:
    """What torch's compiler for the CPU needs and does not find."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415 (a second, which only this takes)
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "C++ compiler (g++, or what $CXX names)"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"{header} (of Python's development package)"

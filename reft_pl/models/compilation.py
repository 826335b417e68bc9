"""Compile transformer layers with torch.compile, fusing dozens of kernels per layer into a few."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from reft_pl.errors import UserError


def transformer_layers(network: nn.Module) -> list[nn.Module]:
    """Return the transformer layers in order, as marked by ``transformers``; empty if the architecture marks none."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


CASES = 64
"""Limit on compiled variants per process, such as with or without gradients, one row or several."""

ACTIVATIONS = 0.4
"""Activation memory budget of compiled layers: fraction of the saved tensors kept, at the sizes compiled first.

torch recomputes the cheapest operations. On two CPU cores this takes no measurable time (docs/log.md); it has not been
measured on a GPU.
"""


def compile_layers(network: nn.Module) -> None:
    """Compile every transformer layer on first use, for any number of rows and tokens.

    All layers share their compiled code, so thirty layers compile as fast as one. If the machine has no C++ compiler or Python
    headers, a warning is logged and the layers run uncompiled.

    Raises:
        UserError: The architecture does not mark its layers.
    """
    layers = transformer_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no layers that can be compiled: set policy.compile to false.")
    lacking = None if torch.cuda.is_available() else what_compilation_lacks()
    if lacking is not None:
        rank_zero_warn(f"policy.compile is on, but there is no {lacking}: layers run uncompiled, which is slower")
        return
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, CASES)  # beyond it torch falls back to eager almost silently
    config.optimize_ddp = False  # it would split each layer's graph; one graph per layer overlaps communication enough
    kept = torch._functorch.config
    kept.activation_memory_budget = min(kept.activation_memory_budget, ACTIVATIONS)
    for layer in layers:
        layer.compile(dynamic=True)


def compiled_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers that ``compile_layers`` compiled, in order."""
    return [layer for layer in transformer_layers(network) if layer._compiled_call_impl is not None]


def what_compilation_lacks() -> str | None:
    """Return what torch needs to compile for the CPU but cannot find; None if nothing is missing."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415 (takes a second)
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "C++ compiler (g++, or what $CXX names)"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"{header} (of Python's development package)"

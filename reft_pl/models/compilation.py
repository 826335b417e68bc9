"""Compiled transformer layers: norms, rotations, activations and their gradients in a few fused kernels instead of dozens."""

from __future__ import annotations

import os
import shutil

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from reft_pl.errors import UserError


def compile_layers(trunk: nn.Module) -> None:
    """Let every transformer layer of ``trunk`` be compiled the first time that it is used, for any number of rows and tokens.

    All layers share one piece of code, so that it takes as long for thirty as for one. Where there is no C++ compiler that is
    said, and the layers run as they are.

    Raises:
        UserError: the architecture has no layers that are marked as such.
    """
    layers = _layers(trunk)
    if not layers:
        raise UserError(f"{type(trunk).__name__} has no layers that can be compiled: set policy.compile to false.")
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        rank_zero_warn("policy.compile is on and no C++ compiler was found (g++, clang++, $CXX): going on without, more slowly")
        return
    for layer in layers:
        layer.compile(dynamic=True)


def compiled_layers(network: nn.Module) -> list[nn.Module]:
    """The layers in which ``compile_layers`` was at work, in their order; none where it was not."""
    return [layer for layer in _layers(network) if layer._compiled_call_impl is not None]


def _layers(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]

"""The repeated layers of a network."""

from __future__ import annotations

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def transformer_layers(network: nn.Module) -> list[nn.Module]:
    """The modules that transformers marks as its layers, in their order; none where an architecture has no such marks."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]

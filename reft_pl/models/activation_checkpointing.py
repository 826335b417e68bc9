"""Activation checkpointing that works in eval mode.

``transformers`` checkpoints layers only in train mode. PPO updates run in eval mode to disable dropout, so the library's
``gradient_checkpointing_enable`` would silently do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reft_pl.errors import UserError
from reft_pl.models.compilation import transformer_layers


def checkpoint_layers(trunk: nn.Module) -> None:
    """Checkpoint every transformer layer of ``trunk``: store only its input and recompute the rest in the backward pass.

    Raises:
        UserError: The architecture does not mark its layers.
    """
    layers = transformer_layers(trunk)
    if not layers:
        raise UserError(f"{type(trunk).__name__} does not support gradient_checkpointing: set it to false.")
    for layer in layers:
        # A partial of a bound method, not a closure, so that deepcopy binds the copied forward to the copied layer.
        layer.forward = partial(_forward, layer.forward)


def _forward(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)

"""Activation checkpointing that does not depend on train or eval mode.

``transformers`` checkpoints a layer in train mode only. PPO updates run in eval mode, because dropout is off, and there the
library's own switch would silently do nothing.
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
    """Make every transformer layer of ``trunk`` keep its input alone and recompute the rest in the backward pass.

    Raises:
        UserError: the architecture has no layers that know checkpointing.
    """
    layers = transformer_layers(trunk)
    if not layers:
        raise UserError(f"{type(trunk).__name__} does not support gradient_checkpointing: set it to false.")
    for layer in layers:
        # a partial of a bound method, not a closure: deepcopy then binds the copy's forward to the copy
        layer.forward = partial(_forward, layer.forward)


def _forward(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)

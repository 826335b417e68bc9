"""Detect NaN and infinity in weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reft_pl.errors import UserError


def not_finite(weights: nn.Module | Mapping[str, Tensor]) -> str | None:
    """Return the name of the first weight that contains NaN or infinity, or None."""
    named = weights.named_parameters() if isinstance(weights, nn.Module) else weights.items()
    for name, tensor in named:
        if not tensor.is_meta and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def refuse_not_finite(source: str, weights: nn.Module | Mapping[str, Tensor]) -> None:
    """Refuse weights that would make every result NaN.

    Args:
        source: Name of the model in the error message.
        weights: A model, or tensors by name.

    Raises:
        UserError: A weight contains NaN or infinity.
    """
    name = not_finite(weights)
    if name is not None:
        raise UserError(
            f"{source} holds NaN or infinity in {name}: its training diverged or the file is damaged; use other weights"
        )

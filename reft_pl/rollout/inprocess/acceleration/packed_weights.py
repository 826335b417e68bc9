"""Linear layers with weights prepacked by oneDNN.

For the few rows of a decoding step, multiplying takes less time than reordering the weights into the processor's layout, which
oneDNN otherwise repeats in every call. Weights do not change during a rollout, so they are reordered once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST = 2**16
"""Weights with fewer elements, such as a tiny model's, are not packed: reordering them is cheap (chosen, not measured)."""

_in_use: list[PackedWeights] = []
"""A stack through which compiled code, which passes only plain tensors, finds the packed weights."""

_operators = torch.library.Library("reft_pl", "FRAGMENT")  # type: ignore[no-untyped-call]
_operators.define("packed_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")  # type: ignore[no-untyped-call]


@torch.library.impl(_operators, "packed_linear", "CPU")
def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    packed = _in_use[-1].packed(weight)
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return output


@torch.library.impl(_operators, "packed_linear", "Meta")
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class PackedLinear(nn.Linear):
    """The class of a linear layer while its weight is packed."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name for it)
        """Compute ``nn.Linear`` without gradient."""
        output: Tensor = torch.ops.reft_pl.packed_linear(input, self.weight, self.bias)
        return output


class PackedWeights:
    """The packed weights of a model's linear layers; none if oneDNN cannot pack them, as on a GPU.

    A weight is packed on first use.

    Args:
        model: The model. Its weights must not change while the packed ones are in use.
        rows: Number of input rows to optimize the layout for; it works for any number.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        self._rows = rows
        self._layers: list[nn.Module] = [m for m in model.modules() if type(m) is nn.Linear and _can_be_packed(m.weight)]
        self._packed: dict[int, Tensor] = {}

    def packed(self, weight: Tensor) -> Tensor:
        """Return a weight in oneDNN's layout."""
        found = self._packed.get(weight.data_ptr())
        if found is None:
            found = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), self._rows)
            self._packed[weight.data_ptr()] = found
        return found

    @contextmanager
    def used(self) -> Iterator[None]:
        """Make the layers use their packed weights within the block."""
        _in_use.append(self)
        for layer in self._layers:
            layer.__class__ = PackedLinear
        try:
            yield
        finally:
            for layer in self._layers:
                layer.__class__ = nn.Linear
            _in_use.pop()


def _can_be_packed(weight: Tensor) -> bool:
    """Return whether oneDNN can pack the weight: a contiguous CPU matrix, large enough, in a supported dtype."""
    if type(weight) is not nn.Parameter or weight.device.type != "cpu" or weight.ndim != 2 or weight.numel() < SMALLEST:
        return False
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (available and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    has_bfloat16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.is_contiguous() and (weight.dtype == torch.float32 or has_bfloat16)

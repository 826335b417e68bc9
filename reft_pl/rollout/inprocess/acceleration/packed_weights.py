"""Linear layers whose weights oneDNN has laid out beforehand.

Multiplying the few rows of a decoding step is over sooner than bringing the weights into the order that the processor
multiplies in, which happens anew in every call. While a rollout lasts the weights do not change: they are ordered once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST = 2**16
"""Weights of fewer numbers, such as a tiny model's, stay as they are: there is little to order (chosen, not measured)."""

_in_use: list[PackedWeights] = []
"""Where compiled code, which hands on plain tensors alone, finds the packed ones."""

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
    """What a linear layer is while its weight is packed."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name it has in torch)
        """As ``nn.Linear``, without gradient."""
        output: Tensor = torch.ops.reft_pl.packed_linear(input, self.weight, self.bias)
        return output


class PackedWeights:
    """The packed weights of a model's linear layers; none where oneDNN has nothing to pack, as on a GPU.

    A weight is packed when it is first used.

    Args:
        model: Whose weights do not change while these are used.
        rows: For which the order is chosen; it serves any number.
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
        """A block in which the layers multiply with their packed weights."""
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
    """Whether it lies whole in the memory of a processor that oneDNN multiplies its numbers on."""
    if type(weight) is not nn.Parameter or weight.device.type != "cpu" or weight.ndim != 2 or weight.numel() < SMALLEST:
        return False
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (available and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    has_bfloat16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.is_contiguous() and (weight.dtype == torch.float32 or has_bfloat16)

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
_operators.define("packed_linear(Tensor x, Tensor[] weights, Tensor[] biases) -> Tensor")  # type: ignore[no-untyped-call]


@torch.library.impl(_operators, "packed_linear", "CPU")
def _packed_linear(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    weight, bias = _in_use[-1].packed(weights, biases)
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return output


@torch.library.impl(_operators, "packed_linear", "Meta")
def _shape(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    return x.new_empty((*x.shape[:-1], sum(weight.shape[0] for weight in weights)))


class PackedLinear(nn.Linear):
    """What a linear layer is while its weight is packed."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name it has in torch)
        """As ``nn.Linear``, without gradient."""
        output: Tensor = torch.ops.reft_pl.packed_linear(input, [self.weight], [] if self.bias is None else [self.bias])
        return output


class PackedWeights:
    """The packed weights of a model's linear layers; none where oneDNN has nothing to pack, as on a GPU.

    Weights are packed when they are first needed: by themselves, or side by side with those that multiply the same numbers.

    Args:
        model: Whose weights do not change while these are used.
        rows: For which the order is chosen; it serves any number.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        self._rows = rows
        self._layers: list[nn.Module] = [m for m in model.modules() if type(m) is nn.Linear and _can_be_packed(m.weight)]
        self._packed: dict[tuple[int, ...], tuple[Tensor, Tensor | None]] = {}

    def packed(self, weights: list[Tensor], biases: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """One weight, packed, and one bias, if there are any, that do what all of these do."""
        key = tuple(tensor.data_ptr() for tensor in (*weights, *biases))
        found = self._packed.get(key)
        if found is None:
            whole = weights[0] if len(weights) == 1 else torch.cat(weights)
            ordered = torch.ops.mkldnn._reorder_linear_weight(whole.detach(), self._rows)
            found = self._packed[key] = ordered, torch.cat(biases) if biases else None
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

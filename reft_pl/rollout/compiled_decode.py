"""Decoding with compiled layers: a step's many small operations become a few, for any number of rows and any room.

A compiled layer must not see which layer it is, or each of them would be compiled by itself: it gets its own part of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reft_pl.models.compilation import compiled_layers
from reft_pl.rollout.cache import SlotCache, SlotLayer


class OneLayer:
    """What a layer sees of the cache: its own part, whatever number it calls itself.

    Args:
        slots: That part.
    """

    def __init__(self, slots: SlotLayer) -> None:
        self.slots = slots

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Keys and values of the active rows, the new ones among them."""
        return self.slots.update(key_states, value_states)


@contextmanager
def compiled_decoding(lm: PreTrainedModel) -> Iterator[None]:
    """A block in which ``lm``'s layers, if they are compiled for training, have other code: compiled for decoding over slots.

    Everything else that goes through them, such as packed prompts, is run as it is written.
    """
    layers = compiled_layers(lm)
    own = [layer._compiled_call_impl for layer in layers]
    for index, layer in enumerate(layers):
        layer._compiled_call_impl = _decoding(layer, index)
    try:
        yield
    finally:
        for layer, call in zip(layers, own, strict=True):
            layer._compiled_call_impl = call


def _decoding(layer: nn.Module, index: int) -> Callable[..., Any]:
    run_as_written: Any = layer._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if isinstance(cache, SlotCache):  # a model that hands its cache on by position is run as it is written
            return _step(layer, cache.slot_layers[index], args, kwargs)
        return run_as_written(*args, **kwargs)

    return call


def _call(layer: Any, slots: SlotLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return layer._call_impl(*args, **{**kwargs, "past_key_values": OneLayer(slots)})


_step = torch.compile(_call, dynamic=True)

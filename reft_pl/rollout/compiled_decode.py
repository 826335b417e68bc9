"""Decoding with compiled layers: a step's many small operations become a few, for any number of rows and any room.

A compiled layer must not see which layer it is, or each of them would be compiled by itself: it gets its own part of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reft_pl.models.compilation import compiled_layers
from reft_pl.rollout.cache import SlotCache, SlotLayer


class OwnCache:
    """What a layer sees of the cache: its own part, whatever number it calls itself.

    Args:
        slots: That part.
    """

    def __init__(self, slots: SlotLayer) -> None:
        self.slots = slots

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, the new ones among them."""
        return self.slots.update(key_states, value_states)

    def get_seq_length(self, *args: object) -> int:
        """As the whole cache says."""
        return self.slots.get_seq_length()


@contextmanager
def compiled_decoding(lm: PreTrainedModel) -> Iterator[None]:
    """A block in which ``lm``'s layers, if they are compiled for training, have other code: compiled for decoding over slots.

    Everything else that goes through them, such as packed prompts, is run as it is written.
    """
    layers = compiled_layers(lm)
    for_training = [layer._compiled_call_impl for layer in layers]
    for index, layer in enumerate(layers):
        layer._compiled_call_impl = _decoding(layer, index, len(layers))
    try:
        yield
    finally:
        for layer, call in zip(layers, for_training, strict=True):
            layer._compiled_call_impl = call


def _decoding(layer: nn.Module, index: int, layers: int) -> Callable[..., Any]:
    as_written: Any = layer._call_impl

    def own(value: Any) -> Any:
        return OwnCache(value.slot_layers[index]) if isinstance(value, SlotCache) else value

    def call(*args: Any, **kwargs: Any) -> Any:
        whole = next((value for value in (*args, *kwargs.values()) if isinstance(value, SlotCache)), None)
        if whole is None or len(whole.slot_layers) != layers:  # where layers share a cache, order does not tell whose it is
            return as_written(*args, **kwargs)
        return _compiled()(layer, tuple(map(own, args)), {name: own(value) for name, value in kwargs.items()})

    return call


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(_call, dynamic=True)


def _call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return layer._call_impl(*args, **kwargs)

"""Compiled layers for sampling: a few fused kernels for any number of tokens and any cache size.

Compiled code must not depend on the layer's index, or torch would compile every layer separately. Each layer therefore gets
only its part of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from reft_pl.models.compilation import compiled_layers


class OwnCache:
    """A view of the cache for one layer, which ignores the layer index.

    Args:
        layer: The layer's part of the cache, a ``SlotLayer`` or a ``PromptLayer``.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Update the layer's part of the cache."""
        states: tuple[Tensor, Tensor] = self.layer.update(key_states, value_states)
        return states

    def get_seq_length(self, *args: object) -> int:
        """Return the sequence length, which is the same for all layers."""
        length: int = self.layer.get_seq_length()
        return length


@contextmanager
def compiled_sampling(lm: PreTrainedModel) -> Iterator[None]:
    """Within the block, replace the code of layers compiled for training with code compiled for sampling."""
    layers = compiled_layers(lm)
    for_training = [layer._compiled_call_impl for layer in layers]
    for index, layer in enumerate(layers):
        layer._compiled_call_impl = _sampling(layer, index, len(layers))
    try:
        yield
    finally:
        for layer, call in zip(layers, for_training, strict=True):
            layer._compiled_call_impl = call


def _sampling(layer: nn.Module, index: int, layers: int) -> Callable[..., Any]:
    as_written: Any = layer._call_impl

    def own(value: Any) -> Any:
        return OwnCache(value.layers[index]) if isinstance(value, Cache) else value

    def call(*args: Any, **kwargs: Any) -> Any:
        whole = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
        if whole is None or len(whole.layers) != layers:  # if layers share a cache, order does not identify a layer's part
            return as_written(*args, **kwargs)
        return _compiled()(layer, tuple(map(own, args)), {name: own(value) for name, value in kwargs.items()})

    return call


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(_call, dynamic=True)


def _call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return layer._call_impl(*args, **kwargs)

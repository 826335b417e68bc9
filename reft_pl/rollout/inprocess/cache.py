"""KV caches: one for packed prompts, and one of slots for decoding, with active slots first."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from reft_pl.models.packing import Packing

_GRANULE = 64
"""Slot lengths are allocated in multiples of this many tokens."""


class PromptLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values of packed prompts, [1, K, N, D] each; None before the prefill."""

    is_sliding = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: ``update`` stores the tensors it gets."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Store keys and values, and return them."""
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Return 0: prompts have no cached prefix."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and the offset of the keys that ``update`` returns."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Return -1: no maximum."""
        return -1


class PromptCache(Cache):
    """Keys and values of packed prompts.

    Args:
        lm: The model that prefills them.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        config = lm.config.get_text_config()
        layers = config.num_hidden_layers - getattr(config, "num_kv_shared_layers", 0)
        self.prompt_layers = [PromptLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]
        super().__init__(layers=list(self.prompt_layers))

    @property
    def states(self) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and values of each layer, [1, K, N, D] each.

        Raises:
            TypeError: A layer has stored no keys and values.
        """
        states = []
        for layer in self.prompt_layers:
            if layer.keys is None or layer.values is None:
                raise TypeError("a layer of the model does not store keys and values in the KV cache")
            states.append((layer.keys, layer.values))
        return states


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values of S slots, [S, K, L, D] each, with room for L tokens.

    Batched products read all L tokens, because the matrix product would copy a view that is shorter than its memory at every
    step. The memory is initialised to zero and always finite, because an attention weight of 0 does not cancel a NaN.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, slots: int, like_keys: Tensor, like_values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        kv_heads = like_keys.shape[1]
        self.keys = like_keys.new_zeros(slots, kv_heads, 0, like_keys.shape[-1])
        self.values = like_values.new_zeros(slots, kv_heads, 0, like_values.shape[-1])
        self.rows = torch.empty(0, dtype=torch.int64)
        self.positions = torch.empty(0, dtype=torch.int64)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the constructor allocates the tensors."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Store each of N new tokens at its position in its row's slot.

        Args:
            key_states: [1, K, N, D].
            value_states: [1, K, N, D].
            *args: Ignored.
            **kwargs: Ignored.

        Returns:
            Keys and values of all slots, [S, K, L, D] each.
        """
        self.keys[self.rows, :, self.positions] = key_states[0].transpose(0, 1)
        self.values[self.rows, :, self.positions] = value_states[0].transpose(0, 1)
        return self.keys, self.values

    @property
    def room(self) -> int:
        """Return the number of tokens that fit into a slot."""
        return self.keys.shape[2]

    def get_seq_length(self) -> int:
        """Return an upper bound on the cached tokens; the exact positions are in ``position_ids``."""
        return self.room - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and the offset of the keys that ``update`` returns."""
        return self.room, 0

    def get_max_length(self) -> int:
        """Return -1: the cache grows without a maximum."""
        return -1

    def resize(self, room: int, active: int) -> None:
        """Resize every slot to ``room`` tokens, keeping what fits of the first ``active`` slots."""
        kept = min(room, self.room)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(*old.shape[:2], room, old.shape[-1])
            new[:active, :, :kept] = old[:active, :, :kept]
            setattr(self, name, new)


class SlotCache(Cache):
    """KV cache for decoding, filled from prefill caches.

    Args:
        slots: Number of sequences that it holds.
        like: A prefill cache; its layers determine shapes and dtypes.
    """

    def __init__(self, slots: int, like: PromptCache) -> None:
        self.slot_layers = [SlotLayer(slots, keys, values) for keys, values in like.states]
        super().__init__(layers=list(self.slot_layers))

    def fit(self, length: int, active: int) -> None:
        """Grow slots to at least ``length`` tokens, or shrink them if they are far larger; keep the first ``active`` slots."""
        room = self.slot_layers[0].room
        wanted = -(-(length + _GRANULE // 2) // _GRANULE) * _GRANULE
        if length > room or room >= wanted + 2 * _GRANULE:
            for layer in self.slot_layers:
                layer.resize(wanted, active)

    def fill(self, slot: int, prefill: PromptCache, start: int, length: int) -> None:
        """Copy the tokens ``start`` to ``start + length`` of a packed prefill ([1, K, N, D] a layer) into a slot."""
        for layer, (keys, values) in zip(self.slot_layers, prefill.states, strict=True):
            layer.keys[slot, :, :length] = keys[0, :, start : start + length]
            layer.values[slot, :, :length] = values[0, :, start : start + length]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy ``length`` tokens from one slot to another."""
        for layer in self.slot_layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def place(self, packing: Packing) -> None:
        """Set where ``update`` stores the new tokens of the next decoding step."""
        for layer in self.slot_layers:
            layer.rows, layer.positions = packing.rows, packing.positions

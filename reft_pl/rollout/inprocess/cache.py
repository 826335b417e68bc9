"""Keys and values: of prompts as they are read, and of slots, one sequence each at its own length, the active ones in front."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from reft_pl.rollout.inprocess.packing import Packing

_GRANULE = 64
"""Lengths are allocated in multiples of this many tokens."""


class PromptLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values of packed prompts that are read in one pass, [1, K, N, D] each; None before."""

    is_sliding = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is prepared."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Keep them, and give them back."""
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Nothing stands before prompts."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that ``update`` returns."""
        return query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class PromptCache(Cache):
    """Keys and values of packed prompts.

    Args:
        lm: Which is going to read them.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        config = lm.config.get_text_config()
        layers = config.num_hidden_layers - getattr(config, "num_kv_shared_layers", 0)
        self.prompt_layers = [PromptLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]
        super().__init__(layers=list(self.prompt_layers))

    @property
    def states(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, [1, K, N, D]."""
        states = []
        for layer in self.prompt_layers:
            if layer.keys is None or layer.values is None:
                raise TypeError("a layer of the model keeps no keys and values")
            states.append((layer.keys, layer.values))
        return states


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values of S slots, [S, K, L, D] each, L tokens of room.

    Batched products read all of the room: a view that is shorter than its memory would be copied by the matrix product at every
    step. Memory starts as zeros and only ever holds finite numbers, since a masked weight of 0 does not silence a NaN.
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
        """Nothing is left to do: the constructor knows the shapes."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Store each of N new tokens in its row, at its position.

        Args:
            key_states: [1, K, N, D].
            value_states: [1, K, N, D].
            *args: Ignored.
            **kwargs: Ignored.

        Returns:
            Keys and values of all slots, [S, K, L, D].
        """
        self.keys[self.rows, :, self.positions] = key_states[0].transpose(0, 1)
        self.values[self.rows, :, self.positions] = value_states[0].transpose(0, 1)
        return self.keys, self.values

    @property
    def room(self) -> int:
        """Tokens that fit into a slot."""
        return self.keys.shape[2]

    def get_seq_length(self) -> int:
        """An upper bound on the tokens before those being decoded; they tell their own by ``position_ids``."""
        return self.room - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that ``update`` returns."""
        return self.room, 0

    def get_max_length(self) -> int:
        """No maximum: the cache grows."""
        return -1

    def resize(self, room: int, active: int) -> None:
        """Give every slot room for ``room`` tokens, keeping what fits of the first ``active`` slots."""
        kept = min(room, self.room)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(*old.shape[:2], room, old.shape[-1])
            new[:active, :, :kept] = old[:active, :, :kept]
            setattr(self, name, new)


class SlotCache(Cache):
    """The cache that decoding runs on, filled from the caches of prefills.

    Args:
        slots: How many sequences it holds.
        like: A prefill's cache, whose layers tell shapes and types.
    """

    def __init__(self, slots: int, like: PromptCache) -> None:
        self.slot_layers = [SlotLayer(slots, keys, values) for keys, values in like.states]
        super().__init__(layers=list(self.slot_layers))

    def fit(self, length: int, active: int) -> None:
        """Make room for ``length`` tokens in each of the first ``active`` slots, and give back room far beyond that."""
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
        """Prepare a decoding step: where its new tokens go."""
        for layer in self.slot_layers:
            layer.rows, layer.positions = packing.rows, packing.positions

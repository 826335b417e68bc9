"""What the machine can do, and what a model needs of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def matmul_peak(dtype: torch.dtype, size: int = 2048, rounds: int = 5) -> float:
    """FLOP/s of a square matrix product, the median of some rounds."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    a @ b
    return 2 * size**3 / statistics.median(seconds(lambda: a @ b) for _ in range(rounds))


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Need:
    """FLOPs of a decoder, counted from its config: 2 per weight and token forward, the head only where a token is chosen."""

    layer_weights: int
    head_weights: int
    layers: int
    width: int

    @classmethod
    def of(cls, config: Any) -> Need:
        """Of a Llama-like config (gated MLP, grouped key heads)."""
        width, heads = config.hidden_size, config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or width // heads
        attention = width * head_width * (2 * heads + 2 * config.num_key_value_heads)
        layer = attention + 3 * width * config.intermediate_size
        return cls(layer * config.num_hidden_layers, config.vocab_size * width, config.num_hidden_layers, heads * head_width)

    def forward(self, lengths: list[int], chosen: int) -> float:
        """One pass over sequences of these lengths, of whose positions ``chosen`` go through the head; causal attention."""
        attention = sum(2 * n * n * self.width * self.layers for n in lengths)  # half of 2 products of 2 n^2 D
        return 2.0 * self.layer_weights * sum(lengths) + attention + 2.0 * self.head_weights * chosen

    def update(self, lengths: list[int], chosen: int) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.forward(lengths, chosen)

    def rollout(self, prompts: list[int], responses: list[int]) -> float:
        """Reading each prompt once and writing its response token by token over a cache."""
        writing = sum(
            2.0 * (self.layer_weights + self.head_weights) * r + 4.0 * self.width * self.layers * r * (p + r / 2)
            for p, r in zip(prompts, responses, strict=True)
        )
        return self.forward(prompts, len(prompts)) + writing

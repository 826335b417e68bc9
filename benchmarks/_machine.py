"""Measure the machine's peak rates, and count the FLOPs of a model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def matmul_peak(dtype: torch.dtype, size: int = 2048, rounds: int = 5) -> float:
    """Return FLOP/s of a square matrix product, the median of several rounds."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    a @ b
    return 2 * size**3 / statistics.median(seconds(lambda: a @ b) for _ in range(rounds))


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one call in seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def memory_rate(size: int = 2**29, rounds: int = 5) -> float:
    """Return the memory read rate in bytes/s, the median of several rounds."""
    values = torch.ones(size // 8, dtype=torch.int64)
    values.sum()
    return size / statistics.median(seconds(values.sum) for _ in range(rounds))


@dataclass(frozen=True)
class Need:
    """FLOPs of a decoder, from its config: 2 per weight and token forward; the head only where a token is chosen."""

    layer_weights: int
    head_weights: int
    layers: int
    width: int
    kv_width: int

    @classmethod
    def of(cls, config: Any) -> Need:
        """Build from a Llama-like config (gated MLP, grouped key heads)."""
        width, heads = config.hidden_size, config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or width // heads
        attention = width * head_width * (2 * heads + 2 * config.num_key_value_heads)
        layer = attention + 3 * width * config.intermediate_size
        layers, kv_width = config.num_hidden_layers, config.num_key_value_heads * head_width
        return cls(layer * layers, config.vocab_size * width, layers, heads * head_width, kv_width)

    def forward(self, lengths: list[int], chosen: int) -> float:
        """Return FLOPs of one causal pass over sequences of these lengths; ``chosen`` positions go through the head."""
        attention = sum(2 * n * n * self.width * self.layers for n in lengths)  # half of 2 products of 2 n^2 D
        return 2.0 * self.layer_weights * sum(lengths) + attention + 2.0 * self.head_weights * chosen

    def update(self, lengths: list[int], chosen: int) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.forward(lengths, chosen)

    def rollout_seconds(self, prompts: list[int], responses: list[int], peak: float, rate: float, size: int) -> float:
        """Return the minimum time of a rollout that decodes all rows in parallel, with ``size`` bytes per number.

        Each decoding step takes its FLOPs at ``peak``, or reading all weights and the rows' keys and values at ``rate``
        bytes/s, whichever is longer.
        """
        total = self.forward(prompts, len(prompts)) / peak
        for written in range(1, max(responses)):
            rows = [p + written for p, r in zip(prompts, responses, strict=True) if r > written]
            weights = self.layer_weights + self.head_weights
            flops = 2.0 * weights * len(rows) + 4.0 * self.width * self.layers * sum(rows)
            read = size * (weights + 2 * self.kv_width * self.layers * sum(rows))
            total += max(flops / peak, read / rate)
        return total

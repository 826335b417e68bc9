"""Tiny random models of four architectures, and a batch to run through them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import (
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from reft_pl.types import TokenBatch
from tests.random_models import random_model

VOCABULARY = 101
SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
ROTARY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SPECIAL, **ROTARY, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SPECIAL, **ROTARY),
    "gpt2": GPT2Config(**SPECIAL, n_embd=32, n_layer=2, n_head=4, n_positions=48),
    "opt": OPTConfig(
        **SPECIAL,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=48,
        word_embed_proj_dim=16,
    ),
}


def tiny(name: str) -> PreTrainedModel:
    return random_model(CONFIGS[name], seed=7)


@pytest.fixture(params=list(CONFIGS))
def lm(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny(request.param)


@pytest.fixture
def llama() -> PreTrainedModel:
    return tiny("llama")


Batches = Callable[[str], TokenBatch]


@pytest.fixture
def batches() -> Batches:
    """Build four fixed sequences, padded with EOS (as SmolLM2 does) on the requested side: left, right, or mixed.

    The last token of the vocabulary is in none of them.
    """
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, VOCABULARY - 1, (length,), generator=generator) for length in (9, 5, 12, 3)]
    prompts = (4, 2, 5, 1)

    def build(side: str) -> TokenBatch:
        width = 14  # wider than the longest row: all rows have padding
        ids = torch.full((len(rows), width), 2)
        real, action = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
        for b, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            start = {"right": 0, "left": width - len(row), "mixed": (width - len(row)) // 2}[side]
            ids[b, start : start + len(row)] = row
            ids[b, start + len(row) - 1] = 2  # ends with EOS, which is also the padding
            real[b, start : start + len(row)] = True
            action[b, start + prompt - 1 : start + len(row) - 1] = True
        return TokenBatch(ids, real, action)

    return build

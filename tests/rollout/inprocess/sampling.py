"""Tiny models of several architectures, requests for them, and a call that samples them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    CodeGenConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from reft_pl.models.policy import Policy
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.seeds import counter_seed
from reft_pl.types import Completion, SampleRequest, SamplingParams
from tests.random_models import random_model

VOCAB = 61
EOS = 2

ROPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama_gqa": LlamaConfig(**ROPE, num_attention_heads=4, num_key_value_heads=2),
    "llama_mha": LlamaConfig(**ROPE, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True),
    "llama_mqa": LlamaConfig(**ROPE, num_attention_heads=4, num_key_value_heads=1),
    "qwen2": Qwen2Config(**ROPE, num_attention_heads=4, num_key_value_heads=2),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "opt": OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
        word_embed_proj_dim=32,
    ),
    "codegen": CodeGenConfig(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128, n_ctx=128, rotary_dim=4),
}  # fmt: skip


def build(name: str) -> PreTrainedModel:
    return random_model(CONFIGS[name])


def prompts(n: int, longest: int = 40) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator).tolist()
    return [tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist()) for length in lengths]


def requests(
    n: int, params: SamplingParams, samples: int = 1, eos_ids: tuple[int, ...] = (EOS,), longest: int = 40
) -> list[SampleRequest]:
    return [
        SampleRequest(str(i), ids, params, tuple(counter_seed(0, "t", 0, str(i), s) for s in range(samples)), eos_ids=eos_ids)
        for i, ids in enumerate(prompts(n, longest))
    ]


def sample(lm: PreTrainedModel | Policy, asked: Sequence[SampleRequest], **settings: int) -> dict[tuple[str, int], Completion]:
    sampler = InProcessSampler(**settings)
    sampler.sync(lm if isinstance(lm, Policy) else Policy(lm))
    found = {}
    for completion in sampler.stream(asked):
        assert (completion.request_id, completion.index) not in found
        found[completion.request_id, completion.index] = completion
    assert set(found) == {(r.id, i) for r in asked for i in range(len(r.seeds))}
    return found

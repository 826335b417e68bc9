"""Sampling with compiled layers, compared with uncompiled ones."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import LlamaConfig

from reft_pl.models.compilation import compile_layers, compiled_layers
from reft_pl.models.policy import Policy
from reft_pl.rollout.inprocess import attention
from reft_pl.rollout.inprocess.acceleration import packed_weights
from reft_pl.rollout.inprocess.acceleration.layer_compilation import compiled_sampling
from reft_pl.types import SamplingParams
from tests.rollout.inprocess.sampling import CONFIGS, ROPE, build, requests, sample

pytestmark = pytest.mark.usefixtures("compiler_from_nothing")


@pytest.mark.slow  # a C++ compiler takes some ten seconds a graph
@pytest.mark.parametrize("name", ["llama_gqa", "qwen2", "gpt2", "opt", "codegen"])
def test_compiled_layers_sample_the_same(name, monkeypatch):
    monkeypatch.setattr(packed_weights, "SMALLEST", 0)
    asked = requests(24, SamplingParams(60, temperature=0.8, top_k=20), samples=2)
    lm = build(name)
    written = sample(lm, asked, max_rows=9)
    compile_layers(lm)
    compiled = sample(lm, asked, max_rows=9)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4  # whatever the rows and the room
    assert {key: c.token_ids for key, c in compiled.items()} == {key: c.token_ids for key, c in written.items()}
    for key, completion in compiled.items():
        torch.testing.assert_close(torch.tensor(completion.logprobs), torch.tensor(written[key].logprobs), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_attention_samples_the_same(dtype, monkeypatch):
    wide = {**ROPE, "hidden_size": 64}
    config = LlamaConfig(**wide, num_attention_heads=4, num_key_value_heads=2)  # heads of 16, which there is code for
    monkeypatch.setitem(CONFIGS, "wide", config)
    asked = requests(24, SamplingParams(60, temperature=0.8, top_k=20, record_values=True), samples=2)
    policy = Policy(build("wide").to(dtype), "shared")
    written = sample(policy, asked, max_rows=9)
    compile_layers(policy.lm)
    called = []
    native = attention.native_attention
    monkeypatch.setattr(attention, "native_attention", lambda *args: called.append(1) or native(*args))
    compiled = sample(policy, asked, max_rows=9)
    assert called
    same = [c.token_ids == written[key].token_ids for key, c in compiled.items()]
    if dtype == torch.float32:
        assert all(same)
    apart = []
    for key, completion in compiled.items():  # in bfloat16 rounding may change a token, and all after it
        pairs = zip(completion.token_ids, written[key].token_ids, completion.logprobs, written[key].logprobs, strict=False)
        apart += [abs(a - b) for _, _, a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
    assert len(apart) > 300
    assert sum(apart) / len(apart) < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.slow
def test_all_layers_share_their_code(monkeypatch):
    monkeypatch.setitem(CONFIGS, "deep", LlamaConfig(**{**ROPE, "num_hidden_layers": 7}, num_attention_heads=4))
    lm = build("deep")
    compile_layers(lm)
    sample(lm, requests(24, SamplingParams(60)), max_rows=9)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_layers_are_restored_even_after_an_error():
    lm = build("llama_gqa")
    compile_layers(lm)
    for_training = [layer._compiled_call_impl for layer in compiled_layers(lm)]

    def interrupted():
        with compiled_sampling(lm):
            assert [layer._compiled_call_impl for layer in compiled_layers(lm)] != for_training
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [layer._compiled_call_impl for layer in compiled_layers(lm)] == for_training

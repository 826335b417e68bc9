"""Decoding with compiled layers against the same layers as they are written."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from reft_pl.models.compilation import compile_layers, compiled_layers
from reft_pl.rollout import packed_weights
from reft_pl.rollout.compiled_sampling import compiled_sampling
from reft_pl.types import SamplingParams

from . import test_inprocess as plain


@pytest.fixture(autouse=True)
def from_nothing():
    """No code of other tests, and no silent way back to uncompiled layers."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


@pytest.mark.slow  # a C++ compiler takes some ten seconds a graph
@pytest.mark.parametrize("name", ["llama_gqa", "qwen2", "gpt2", "opt", "codegen"])
def test_compiled_layers_sample_the_same(name, monkeypatch):
    monkeypatch.setattr(packed_weights, "SMALLEST", 0)
    asked = plain.requests(24, SamplingParams(60, temperature=0.8, top_k=20), samples=2)
    lm = plain.build(name)
    written = plain.sample(lm, asked, max_rows=9)
    compile_layers(lm)
    compiled = plain.sample(lm, asked, max_rows=9)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4  # whatever the rows and the room
    assert {key: c.token_ids for key, c in compiled.items()} == {key: c.token_ids for key, c in written.items()}
    for key, completion in compiled.items():
        torch.testing.assert_close(torch.tensor(completion.logprobs), torch.tensor(written[key].logprobs), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_all_layers_share_their_code(monkeypatch):
    monkeypatch.setitem(plain.CONFIGS, "deep", LlamaConfig(**{**plain._ROPE, "num_hidden_layers": 7}, num_attention_heads=4))
    lm = plain.build("deep")
    compile_layers(lm)
    plain.sample(lm, plain.requests(24, SamplingParams(60)), max_rows=9)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_layers_have_their_own_code_back_whatever_happens():
    lm = plain.build("llama_gqa")
    compile_layers(lm)
    for_training = [layer._compiled_call_impl for layer in compiled_layers(lm)]

    def interrupted():
        with compiled_sampling(lm):
            assert [layer._compiled_call_impl for layer in compiled_layers(lm)] != for_training
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [layer._compiled_call_impl for layer in compiled_layers(lm)] == for_training

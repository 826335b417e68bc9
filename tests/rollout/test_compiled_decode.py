"""Decoding with compiled layers against the same layers as they are written."""

from __future__ import annotations

import pytest
import torch

from reft_pl.models.compilation import compile_layers, compiled_layers
from reft_pl.types import SamplingParams
from tests.rollout.test_inprocess import build, requests, sample

pytestmark = pytest.mark.slow  # a C++ compiler takes some ten seconds a graph


@pytest.mark.parametrize("name", ["llama_gqa", "qwen2", "gpt2", "opt", "codegen"])
def test_compiled_layers_sample_the_same(name):
    asked = requests(24, SamplingParams(60, temperature=0.8, top_k=20), samples=2)
    lm = build(name)
    written = sample(lm, asked, max_rows=9)
    compile_layers(lm)
    for_training = [layer._compiled_call_impl for layer in compiled_layers(lm)]
    torch._dynamo.utils.counters.clear()
    compiled = sample(lm, asked, max_rows=9)
    assert [layer._compiled_call_impl for layer in compiled_layers(lm)] == for_training
    stats = torch._dynamo.utils.counters["stats"]
    assert stats["unique_graphs"] <= 4  # whatever the layer, the rows and the room; one row is a case of its own
    assert {key: c.token_ids for key, c in compiled.items()} == {key: c.token_ids for key, c in written.items()}
    for key, completion in compiled.items():
        torch.testing.assert_close(torch.tensor(completion.logprobs), torch.tensor(written[key].logprobs), atol=1e-4, rtol=1e-4)

"""One vLLM engine for all tests of this folder, because starting it takes longer than the tests."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import HTTPServer
from threading import Thread

import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel

from reft_pl.models.policy import Policy
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.seeds import counter_seed
from reft_pl.rollout.vllm import VLLMSampler, VLLMServerSampler
from reft_pl.rollout.vllm.access import TOKEN_VARIABLE
from reft_pl.rollout.vllm.engine import EngineSettings
from reft_pl.rollout.vllm.engine_sampler import model_config
from reft_pl.rollout.vllm.model_spec import ModelSpec
from reft_pl.rollout.vllm.server import RolloutServer
from reft_pl.types import Completion, SampleRequest, SamplingParams
from tests.random_models import random_model

VOCAB = 96  # vLLM pads it to 128
EOS = 2
TOKEN = "a-token-of-the-tests"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set one token for servers and clients."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)


def build(seed: int = 0) -> PreTrainedModel:
    """Build a random model with weights that the engine fuses and ties."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        return random_model(config, seed=seed)


def requests(n: int, params: SamplingParams, samples: int = 1, eos_ids: tuple[int, ...] = (EOS,)) -> list[SampleRequest]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 40, (n,), generator=generator).tolist()
    prompts = [tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist()) for length in lengths]
    return [
        SampleRequest(str(i), ids, params, tuple(counter_seed(0, "t", 0, str(i), s) for s in range(samples)), eos_ids=eos_ids)
        for i, ids in enumerate(prompts)
    ]


def sample(sampler: Sampler, asked: Sequence[SampleRequest]) -> dict[tuple[str, int], Completion]:
    found = {(c.request_id, c.index): c for c in sampler.stream(asked)}
    assert set(found) == {(r.id, i) for r in asked for i in range(len(r.seeds))}
    return found


@pytest.fixture
def policy() -> Policy:
    return Policy(build())


@pytest.fixture(scope="session")
def engine() -> VLLMSampler:
    """A sampler with a running engine, and the weights of the last sync."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: make vllm")
    sampler = VLLMSampler(max_rows=64, max_model_len=256, cache_gib=0.125, enforce_eager=True)
    sampler.sync(Policy(build()))
    return sampler


@pytest.fixture
def vllm_sampler(engine: VLLMSampler, policy: Policy) -> VLLMSampler:
    """The same sampler with the weights of ``policy``, independent of earlier tests."""
    engine._digest = None
    engine.sync(policy)
    return engine


@pytest.fixture
def server(vllm_sampler: VLLMSampler, policy: Policy) -> Iterator[RolloutServer]:
    """A server with the same engine, as if a trainer requested this model."""
    server = RolloutServer(("127.0.0.1", 0), EngineSettings())
    server.engine = vllm_sampler._engine
    server.model = json.loads(json.dumps({"config": model_config(policy), "dtype": "float32"}))
    server.spec = ModelSpec(server.model["config"], "float32")
    with listening(server):
        yield server


@contextmanager
def listening(server: HTTPServer) -> Iterator[str]:
    """Serve in a thread, and yield the address."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(server: RolloutServer) -> VLLMServerSampler:
    return VLLMServerSampler(f"http://127.0.0.1:{server.server_address[1]}", timeout=120)

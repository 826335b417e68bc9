"""Server and client: with a real engine over HTTP, and with either missing."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.models.policy import Policy
from reft_pl.rollout.vllm import VLLMSampler, VLLMServerSampler
from reft_pl.rollout.vllm.engine import EngineSettings
from reft_pl.rollout.vllm.server import RolloutServer
from reft_pl.types import SamplingParams

from .conftest import TOKEN, build, listening, requests, sample


def test_no_server_is_one_sentence(policy: Policy) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"the rollout server at {url} is unreachable or disconnected .* resume from"):
        VLLMServerSampler(url).check(policy)


@pytest.mark.parametrize("url", ["127.0.0.1:8642", "ftp://host", "http://", "https://", "http://host/path"])
def test_an_invalid_url_is_one_sentence(url: str) -> None:
    with pytest.raises(UserError, match="must begin with http:// or https:// and name a host"):
        VLLMServerSampler(url)


@pytest.mark.parametrize(("url", "what"), [("http://localhost:86x2", "Port"), ("http://[::1", "Invalid IPv6 URL")])
def test_an_unreadable_address_is_one_sentence(url: str, what: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"model.sampler.url '{url}': {what}")):
        VLLMServerSampler(url)


def test_another_kind_of_server_is_one_sentence(policy: Policy) -> None:
    pages = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # answers PUT with an HTML page
    with listening(pages) as url, pytest.raises(UserError, match="is not a `reft-pl rollout-server`"):
        VLLMServerSampler(url).check(policy)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_error_names_the_package(policy: Policy) -> None:
    with pytest.raises(UserError, match=r"vLLM is not installed: pip install 'reft-pl\[vllm\]'"):
        VLLMSampler().check(policy)
    server, stopped = RolloutServer(("127.0.0.1", 0), EngineSettings()), "the rollout server stopped: vLLM is not installed"
    with listening(server) as url, pytest.raises(UserError, match=stopped):
        VLLMServerSampler(url).check(policy)


@pytest.mark.vllm
def test_completions_over_http_equal_the_engines(client: VLLMServerSampler, vllm_sampler: VLLMSampler, policy: Policy) -> None:
    asked = requests(6, SamplingParams(max_new_tokens=12, temperature=0.8), samples=2)
    expected = sample(vllm_sampler, asked)
    client.check(policy)
    for key, completion in sample(client, asked).items():
        assert completion.token_ids == expected[key].token_ids
        torch.testing.assert_close(completion.logprobs, expected[key].logprobs, atol=1e-4, rtol=0)


@pytest.mark.vllm
def test_new_weights_arrive(client: VLLMServerSampler, server: RolloutServer) -> None:
    asked = requests(4, SamplingParams(max_new_tokens=12, temperature=0.0))
    written = []
    for seed in (3, 4, 3):
        client.sync(Policy(build(seed)))
        written.append(sample(client, asked))
    assert written[0] == written[2] != written[1]


@pytest.mark.vllm
def test_weights_of_another_trainer_are_refused(client: VLLMServerSampler, server: RolloutServer, policy: Policy) -> None:
    client.sync(policy)
    VLLMServerSampler(client.urls).sync(Policy(build(seed=5)))
    with pytest.raises(UserError, match=r"the engine has weights [0-9a-f]{32}, but the request is for [0-9a-f]{32}"):
        list(client.stream(requests(1, SamplingParams(2))))


@pytest.mark.vllm
def test_a_broken_upload_keeps_the_previous_weights(client: VLLMServerSampler, server: RolloutServer, policy: Policy) -> None:
    client.sync(policy)
    asked = requests(2, SamplingParams(4))
    before, digest = sample(client, asked), server.digest
    with socket.create_connection(server.server_address[:2]) as half:  # type: ignore[arg-type]
        half.sendall(b"PUT /weights HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode())
        half.sendall(b"\r\nContent-Length: 1000\r\n\r\n" + (40).to_bytes(8, "little") + b"{")
        half.shutdown(socket.SHUT_WR)
        assert b"400" in half.recv(65536)
    assert sample(client, asked) == before
    assert server.digest == digest is not None


@pytest.mark.vllm
def test_a_disconnected_client_frees_the_engine(client: VLLMServerSampler, server: RolloutServer, policy: Policy) -> None:
    client.sync(policy)
    stream = client.stream(requests(8, SamplingParams(max_new_tokens=60), samples=4, eos_ids=()))
    next(stream)
    stream.close()
    asked = requests(3, SamplingParams(max_new_tokens=5))
    assert len(sample(client, asked)) == 3


@pytest.mark.vllm
def test_other_paths_are_not_found(server: RolloutServer) -> None:
    connection = HTTPConnection(*server.server_address[:2])  # type: ignore[arg-type]
    connection.request("POST", "/v1/completions", b"{}", {"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 404
    assert json.loads(answer.read()) == {"error": "there is no /v1/completions"}

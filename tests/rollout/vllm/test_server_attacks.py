"""A rollout server under attack: garbage, stalled callers, guessed tokens and requests from web pages."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from reft_pl.commands import rollout_server
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.stories.source import StorySource
from reft_pl.errors import UserError
from reft_pl.formats import NaturalLanguage
from reft_pl.models.policy import Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule
from reft_pl.reward.base import RewardFunction
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.vllm import VLLMServerSampler, connections
from reft_pl.rollout.vllm import server as server_module
from reft_pl.rollout.vllm.access import TOKEN_VARIABLE
from reft_pl.rollout.vllm.engine import EngineSettings
from reft_pl.rollout.vllm.server import RolloutServer
from reft_pl.types import SamplingParams

from .conftest import TOKEN, build, listening, requests, sample
from .inprocess_engine import InProcessEngine
from .malformed import generated, head, malformed


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutServer]:
    """A listening server with an engine that does not need vLLM."""
    monkeypatch.setattr(server_module, "Engine", InProcessEngine)
    monkeypatch.setattr(InProcessEngine, "calls", [])
    server = RolloutServer(("127.0.0.1", 0), EngineSettings())
    with listening(server):
        yield server


def sampler(server: RolloutServer) -> VLLMServerSampler:
    return VLLMServerSampler(f"http://127.0.0.1:{server.server_address[1]}", timeout=60)


def send(server: RolloutServer, data: bytes, *, end: bool = True) -> tuple[int, str]:
    """Return the status and the rest of the response; status 0 means no response."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=30) as connection:
        answer = b""
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    words = answer.split(None, 2)
    return (int(words[1]), answer.decode()) if len(words) > 2 else (0, "")


def test_malformed_requests_get_a_4xx_and_never_reach_the_engine(rollouts: RolloutServer, policy: Policy) -> None:
    sampler(rollouts).check(policy)
    before, digest = list(InProcessEngine.calls), rollouts.digest
    assert digest is not None
    for data, statuses in malformed(digest):
        status, answer = send(rollouts, data)
        assert status in statuses, (data[:300], answer)
        assert TOKEN not in answer
    assert InProcessEngine.calls == before
    assert rollouts.digest == digest


def test_a_missing_token_is_refused_before_the_body_is_read(rollouts: RolloutServer) -> None:
    for path in ("/model", "/weights", "/completions", "/other"):
        assert send(rollouts, head("PUT", path, 10**12, Authorization=""), end=False)[0] == 401


def test_silent_slow_and_unresponsive_clients_are_disconnected(
    rollouts: RolloutServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.5)
    for start in (b"", b"PUT /mod", head("PUT", "/model", 1000) + b"{"):
        before = time.monotonic()
        status, _ = send(rollouts, start, end=False)
        assert status in {0, 408}
        assert time.monotonic() - before < 5
    with socket.create_connection(rollouts.server_address[:2], timeout=5) as trickle:  # type: ignore[arg-type]
        before = time.monotonic()
        with suppress(OSError):  # a reset or a broken pipe
            while time.monotonic() - before < 10:
                trickle.sendall(b"P")
                time.sleep(0.1)
        assert time.monotonic() - before < 5


def test_silent_connections_do_not_lock_the_trainer_out(rollouts: RolloutServer, policy: Policy) -> None:
    silent = [socket.create_connection(rollouts.server_address[:2]) for _ in range(3 * connections.MAX_UNAUTHENTICATED)]  # type: ignore[arg-type]
    before = time.monotonic()
    sampler(rollouts).check(policy)
    assert time.monotonic() - before < 5
    assert len(rollouts._open) <= connections.MAX_CONNECTIONS
    for connection in silent:
        connection.close()


def test_endless_headers_are_bounded(rollouts: RolloutServer) -> None:
    assert send(rollouts, b"PUT /model HTTP/1.1\r\n" + b"X: " + b"y" * 2**17)[0] in {400, 414, 431}
    assert send(rollouts, b"PUT /model HTTP/1.1\r\n" + b"X: y\r\n" * 2**15)[0] in {400, 431}


class RewardOfTokens(RewardFunction):
    def score(self, samples: Any) -> list[float]:
        return [sum(s.completion.token_ids) % 7 / 7 for s in samples]


def train(folder: Path, model: Path, sampler: Sampler) -> dict[str, torch.Tensor]:
    from lightning.pytorch import Trainer

    module = PPOModule(PolicySettings(str(model), from_scratch=True, dtype="float32"), sampler=sampler, reward=RewardOfTokens())
    data = ReasoningDataModule(
        train=[StorySource("train", 24)], format=NaturalLanguage(), tokenizer=str(model), batch_size=8,
        max_prompt_tokens=190, max_tokens=195, cache_dir=str(folder / "cache"),
    )  # fmt: skip
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_training_run_under_attack_ends_with_the_same_weights(
    rollouts: RolloutServer, micro_model: Path, tmp_path: Path
) -> None:
    expected = train(tmp_path / "alone", micro_model, sampler(rollouts))
    stalls = [
        b"",
        b"PUT /we",
        head("PUT", "/weights", 5000)[:-2],
        head("PUT", "/model", 5000),
        head("POST", "/completions", 5000),
    ]
    stalled = [socket.create_connection(rollouts.server_address[:2]) for _ in range(20)]  # type: ignore[arg-type]
    for connection, start in zip(stalled, stalls * 4, strict=True):
        connection.sendall(start)
    sent = count()

    def attack() -> None:
        for data in generated("other", 1000):
            send(rollouts, data)
            next(sent)

    attacker = Thread(target=attack)
    attacker.start()
    found = train(tmp_path / "attacked", micro_model, sampler(rollouts))
    attacker.join()
    for connection in stalled:
        connection.close()
    assert next(sent) == 1000
    assert InProcessEngine.calls.count("load") >= 6, "the weights changed during both runs"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_wrong_or_missing_token_is_one_sentence_without_it(
    rollouts: RolloutServer, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "wrong-token")
    with pytest.raises(UserError, match="the token is missing or wrong: set REFT_PL_TOKEN") as refused:
        sampler(rollouts).check(policy)
    assert "wrong-token" not in str(refused.value)
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    with pytest.raises(UserError, match="set REFT_PL_TOKEN to the one that it printed"):
        sampler(rollouts).check(policy)
    monkeypatch.setenv(TOKEN_VARIABLE, "two words\n")
    with pytest.raises(UserError, match="printable ASCII") as unusable:
        sampler(rollouts).check(policy)
    assert "two words" not in str(unusable.value)


def test_a_token_in_a_url_is_refused_and_not_repeated() -> None:
    for url in ("http://user:secret@host:1", "http://secret@host", "http://host?token=secret", "https://host#secret"):
        with pytest.raises(UserError, match="set REFT_PL_TOKEN") as refused:
            VLLMServerSampler(url)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_beyond_loopback_a_token_must_be_chosen(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    RolloutServer((host, 0), EngineSettings()).server_close()
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(UserError, match="choose a token and set REFT_PL_TOKEN"):
        RolloutServer((host, 0), EngineSettings())
    with (
        RolloutServer(("localhost", 0), EngineSettings()) as server,
        RolloutServer(("localhost", 0), EngineSettings()) as other,
    ):
        assert len(server.token) >= 32
        assert server.token != other.token


def test_a_failed_engine_is_dropped(rollouts: RolloutServer, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    client = sampler(rollouts)
    client.check(policy)

    def broken(self: InProcessEngine, weights: Any) -> str:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(InProcessEngine, "load", broken)
        with pytest.raises(UserError, match="the rollout server stopped: RuntimeError: out of memory"):
            client.sync(Policy(build(seed=1)))
    assert rollouts.engine is rollouts.digest is None
    other = sampler(rollouts)
    other.check(policy)
    assert len(sample(other, requests(2, SamplingParams(3)))) == 2


def test_tls_with_its_own_authority(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "Engine", InProcessEngine)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = rollout_server._tls(str(certificate), str(key))
    assert isinstance(tls, ssl.SSLContext)
    server = RolloutServer(("127.0.0.1", 0), EngineSettings(), tls=tls)
    with listening(server):
        url = f"https://127.0.0.1:{server.server_address[1]}"
        silent = socket.create_connection(server.server_address[:2])  # type: ignore[arg-type]
        VLLMServerSampler(url, ca_file=str(certificate)).check(policy)
        with pytest.raises(UserError, match=r"is not trusted .* set model.sampler.ca_file"):
            VLLMServerSampler(url).check(policy)
        with pytest.raises(UserError, match="is not a file of PEM certificates"):
            VLLMServerSampler(url, ca_file=str(tmp_path / "none.pem")).check(policy)
        silent.close()
        with closing(HTTPConnection(*server.server_address[:2], timeout=10)) as plain:  # type: ignore[arg-type]
            plain.request("PUT", "/model", b"{}")
            with pytest.raises((OSError, HTTPException)):
                plain.getresponse()


@pytest.mark.parametrize("files", [("c.pem", None), (None, "k.pem"), ("c.pem", "k.pem")])
def test_an_unusable_certificate_is_one_sentence(files: tuple[str | None, str | None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HTTPS"):
        rollout_server._tls(*files)

"""A rollout server beside callers that send garbage, stall, guess tokens, or come from a web page."""

from __future__ import annotations

import json
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
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
from reft_pl.formats import PythonProgram
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
from reft_pl.rollout.vllm.wire import request_to_json, weights_message
from reft_pl.types import SamplingParams

from .conftest import TOKEN, VOCAB, build, listening, requests, sample
from .inprocess_engine import InProcessEngine

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutServer]:
    """A server that listens, whose engine needs no vLLM."""
    monkeypatch.setattr(server_module, "Engine", InProcessEngine)
    monkeypatch.setattr(InProcessEngine, "calls", [])
    server = RolloutServer(("127.0.0.1", 0), EngineSettings())
    with listening(server):
        yield server


def sampler(server: RolloutServer) -> VLLMServerSampler:
    return VLLMServerSampler(f"http://127.0.0.1:{server.server_address[1]}", timeout=60)


def head(method: str, path: str, size: object, **headers: str) -> bytes:
    """Headers as the trainer sends them, with changes; an empty value leaves a header out."""
    lines = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}", "Content-Length": str(size)} | headers
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def put(path: str, body: bytes, **headers: str) -> bytes:
    return head("POST" if path == "/completions" else "PUT", path, len(body), **headers) + body


def send(server: RolloutServer, data: bytes, *, end: bool = True) -> tuple[int, str]:
    """Status and rest of the answer; status 0 is none."""
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


def safetensors(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def asked(digest: str | None, **changes: Any) -> bytes:
    """A request for completions with changed fields; those of its parameters begin with an underscore."""
    message = request_to_json(requests(1, SamplingParams(4))[0])
    for name, value in changes.items():
        (message["params"] if name[0] == "_" else message)[name.lstrip("_")] = value
    return json.dumps({"digest": digest, "requests": [message]}).encode()


def changed_weights(**changes: torch.Tensor | None) -> bytes:
    weights = {name: parameter.detach() for name, parameter in build().named_parameters()}
    weights |= {name: tensor for name, tensor in changes.items() if tensor is not None}
    return b"".join(weights_message([item for item in weights.items() if changes.get(item[0], item) is not None])[1])


def header_of_weights(name: str, **changes: Any) -> bytes:
    data = changed_weights()
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    entries[name] |= changes
    return safetensors(entries, data[8 + size :])


NORM = "model.norm.weight"
DEEP = b"[" * 100_000

WEIGHTS: dict[str, bytes] = {
    "garbage": b"\xff" * 64,
    "empty": b"",
    "header longer than the file": (2**40).to_bytes(8, "little") + b"{}",
    "deep": len(DEEP).to_bytes(8, "little") + DEEP,
    "no tensors": safetensors({}),
    "header that is a list": safetensors([1]),
    "unknown name": changed_weights(other=torch.zeros(2)),
    "missing name": changed_weights(**{NORM: None}),
    "other shape": changed_weights(**{NORM: torch.zeros(8, 8)}),
    "not a number": changed_weights(**{NORM: torch.full((64,), NAN)}),
    "infinite": changed_weights(**{NORM: torch.full((64,), INF)}),
    "negative shape": header_of_weights(NORM, shape=[-8, -8]),
    "offsets backwards": header_of_weights(NORM, data_offsets=[256, 0]),
    "offsets far away": header_of_weights(NORM, data_offsets=[2**62, 2**62 + 256]),
    "unknown dtype": header_of_weights(NORM, dtype="F12"),
    "integers": header_of_weights(NORM, dtype="I32"),
    "shape of text": header_of_weights(NORM, shape="64"),
    "bytes after the end": changed_weights() + b"\0",
    "cut": changed_weights()[:-5],
}

MODELS: list[object] = [
    None, [], {}, "model", {"config": {}}, {"config": [], "dtype": "float32"}, {"config": {}, "dtype": "float32"},
    {"config": {"model_type": "llama"}, "dtype": "int8"}, {"config": {"model_type": "llama"}, "dtype": 1},
    {"config": {"model_type": "none"}, "dtype": "float32"}, {"config": {"model_type": ["llama"]}, "dtype": "float32"},
    {"config": {"model_type": "llama", "hidden_size": -64}, "dtype": "float32"},
    {"config": {"model_type": "llama", "hidden_size": "x"}, "dtype": "float32"},
    {"config": {"model_type": "llama"}, "dtype": "float32", "more": 1}, {"config": {"model_type": "vit"}, "dtype": "float32"},
]  # fmt: skip

REQUESTS: list[dict[str, Any]] = [
    {"prompt_ids": []}, {"prompt_ids": [VOCAB]}, {"prompt_ids": [-1]}, {"prompt_ids": [2**70]}, {"prompt_ids": [1.5]},
    {"prompt_ids": ["1"]}, {"prompt_ids": [True]}, {"prompt_ids": "12"}, {"prompt_ids": None}, {"prompt_ids": [[1]]},
    {"prompt_ids": [5] * 4000}, {"eos_ids": [VOCAB]}, {"eos_ids": 2}, {"seeds": [-1]}, {"seeds": [2**64]}, {"seeds": {}},
    {"id": 5}, {"id": "x" * 5000}, {"params": []}, {"more": 1}, {"_max_new_tokens": 0}, {"_max_new_tokens": -1},
    {"_max_new_tokens": 2048}, {"_max_new_tokens": 2**40}, {"_max_new_tokens": "4"}, {"_temperature": -1.0}, {"_temperature": NAN},
    {"_temperature": INF}, {"_temperature": "1"}, {"_top_k": -1}, {"_top_k": 0.5}, {"_top_k": 2**40}, {"_top_p": 0.0},
    {"_top_p": 1.1}, {"_top_p": NAN}, {"_record_values": True}, {"_record_values": "no"}, {"_more": 1},
]  # fmt: skip

BODIES = [
    b"",
    b"garbage",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b'{"a":' * 50_000,
    DEEP,
    b'{"digest": NaN, "requests": []}',
    b"1" * 9999,
]


def malformed(digest: str) -> list[tuple[bytes, range]]:
    """Requests, and the range that their status must lie in; all but the first few show the token."""
    four = range(400, 500)
    found = [
        (data, four)
        for data in (
            put("/model", b"{}", Authorization=""),
            put("/model", b"{}", Authorization="Bearer wrong"),
            put("/model", b"{}", Authorization=TOKEN),
            put("/model", b"{}", Authorization=f"Basic {TOKEN}"),
            put("/model", b"{}", Authorization="Bearer \xe4"),
            put("/model", b"{}", Host=""),
            put("/model", b"{}", Host="evil.example"),
            put("/model", b"{}", Host="10.0.0.1"),
            put("/model", b"{}", Host="localhost:80@evil.example"),
            put("/model", b"{}", Host="localhost.evil.example"),
            put("/model", b"{}", Origin="http://evil.example"),
            put("/model", b"{}", Origin="null"),
            put("/model", b"{}", Transfer_Encoding="chunked"),
            head("PUT", "/model", "", Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n\r\n",
            put("/other", b"{}"),
            put(f"/model?token={TOKEN}", b"{}"),
        )
    ]
    found += [
        (head(m, p, 2) + b"{}", four)
        for m in ("GET", "DELETE", "BREW", "HEAD", "OPTIONS")
        for p in ("/model", "/weights", "/completions")
    ]
    sizes = ["", "-1", "+2", "0x2", "1e3", "two", "2, 2", "99999999999999", "9" * 400, "1_0"]
    found += [(head("POST", "/completions", size) + b"{}", four) for size in sizes]
    found += [(put("/weights", data), four) for data in WEIGHTS.values()]
    found += [(put(path, body), four) for path in ("/model", "/completions") for body in BODIES]
    found += [(put("/model", json.dumps(model).encode()), four) for model in MODELS]
    found += [(put("/completions", asked(digest, **changes)), four) for changes in REQUESTS]
    found += [(put("/completions", asked(other)), four) for other in (None, "other")]
    return found


def generated(digest: str, n: int) -> Iterator[bytes]:
    """Every malformed request, then random bytes, and requests of which the end is missing."""
    rng = random.Random(0)
    cases = [data for data, _ in malformed(digest)]
    yield from cases[:n]
    for i in range(n - len(cases)):
        data = rng.choice(cases)
        yield rng.randbytes(rng.randrange(1, 300)) if i % 2 else data[: rng.randrange(len(data))]


def test_malformed_requests_get_a_4xx_and_the_engine_sees_none(rollouts: RolloutServer, policy: Policy) -> None:
    sampler(rollouts).check(policy)
    before, digest = list(InProcessEngine.calls), rollouts.digest
    assert digest is not None
    for data, statuses in malformed(digest):
        status, answer = send(rollouts, data)
        assert status in statuses, (data[:300], answer)
        assert TOKEN not in answer
    assert InProcessEngine.calls == before
    assert rollouts.digest == digest


def test_without_the_token_the_answer_comes_before_the_body(rollouts: RolloutServer) -> None:
    for path in ("/model", "/weights", "/completions", "/other"):
        assert send(rollouts, head("PUT", path, 10**12, Authorization=""), end=False)[0] == 401


def test_silent_slow_and_deaf_callers_are_cut_off(rollouts: RolloutServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.5)
    for start in (b"", b"PUT /mod", head("PUT", "/model", 1000) + b"{"):
        before = time.monotonic()
        status, _ = send(rollouts, start, end=False)
        assert status in {0, 408}
        assert time.monotonic() - before < 5
    with socket.create_connection(rollouts.server_address[:2], timeout=5) as trickle:  # type: ignore[arg-type]
        before = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 (a reset or a broken pipe)
            for _ in range(100):
                trickle.sendall(b"P")
                time.sleep(0.1)
        assert time.monotonic() - before < 5


def test_no_number_of_silent_connections_keeps_the_trainer_out(rollouts: RolloutServer, policy: Policy) -> None:
    silent = [socket.create_connection(rollouts.server_address[:2]) for _ in range(3 * connections.MAX_STRANGERS)]  # type: ignore[arg-type]
    before = time.monotonic()
    sampler(rollouts).check(policy)
    assert time.monotonic() - before < 5
    assert len(rollouts._open) <= connections.MAX_CONNECTIONS
    for connection in silent:
        connection.close()


def test_headers_without_end_are_bounded(rollouts: RolloutServer) -> None:
    assert send(rollouts, b"PUT /model HTTP/1.1\r\n" + b"X: " + b"y" * 2**17)[0] in {400, 414, 431}
    assert send(rollouts, b"PUT /model HTTP/1.1\r\n" + b"X: y\r\n" * 2**15)[0] in {400, 431}


class RewardOfTokens(RewardFunction):
    def score(self, samples: Any) -> list[float]:
        return [sum(s.completion.token_ids) % 7 / 7 for s in samples]


def train(folder: Path, model: Path, sampler: Sampler) -> dict[str, torch.Tensor]:
    from lightning.pytorch import Trainer

    module = PPOModule(PolicySettings(str(model), from_scratch=True, dtype="float32"), sampler=sampler, reward=RewardOfTokens())
    data = ReasoningDataModule(
        train=[StorySource("train", 24)], format=PythonProgram(), tokenizer=str(model), batch_size=8,
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
    with pytest.raises(UserError, match="set REFT_PL_TOKEN to what it printed"):
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
    with closing_server(RolloutServer(("localhost", 0), EngineSettings())) as server:
        assert len(server.token) >= 32


def closing_server(server: RolloutServer) -> Any:
    return server


def test_a_failure_of_the_engine_leaves_none(rollouts: RolloutServer, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
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
        with pytest.raises(UserError, match="holds no certificates"):
            VLLMServerSampler(url, ca_file=str(tmp_path / "none.pem")).check(policy)
        silent.close()
        with closing(HTTPConnection(*server.server_address[:2], timeout=10)) as plain:  # type: ignore[arg-type]
            plain.request("PUT", "/model", b"{}")
            with pytest.raises((OSError, Exception)):
                plain.getresponse()


@pytest.mark.parametrize("files", [("c.pem", None), (None, "k.pem"), ("c.pem", "k.pem")])
def test_a_certificate_that_cannot_be_used_is_one_sentence(files: tuple[str | None, str | None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HTTPS"):
        rollout_server._tls(*files)

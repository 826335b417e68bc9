"""Requests that a rollout server must refuse, hand-written and generated."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import torch

from reft_pl.rollout.vllm.wire import request_to_json, weights_message
from reft_pl.types import SamplingParams

from .conftest import TOKEN, VOCAB, build, requests

NAN, INF = float("nan"), float("inf")


def head(method: str, path: str, size: object, **headers: str) -> bytes:
    """The headers of the trainer with changes; an empty value omits a header."""
    lines = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}", "Content-Length": str(size)} | headers
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def put(path: str, body: bytes, **headers: str) -> bytes:
    return head("POST" if path == "/completions" else "PUT", path, len(body), **headers) + body


def safetensors(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def asked(digest: str | None, **changes: Any) -> bytes:
    """A request for completions with changed fields; an underscore prefix marks sampling parameters."""
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
    {"_max_new_tokens": 2048}, {"_max_new_tokens": 2**40}, {"_max_new_tokens": "4"}, {"_temperature": -1.0}, {"_top_p": 0.0},
    {"_temperature": NAN}, {"_temperature": INF}, {"_temperature": "1"}, {"_top_k": -1}, {"_top_k": 0.5}, {"_top_k": 2**40},
    {"_top_p": 1.1}, {"_top_p": NAN}, {"_record_values": True}, {"_record_values": "no"}, {"_more": 1},
    {"_suppressed": [[0, VOCAB]]}, {"_suppressed": [[0, VOCAB + 1]]}, {"_suppressed": [[5, 5]]}, {"_suppressed": [[-1, 5]]},
    {"_suppressed": [[0, 40], [40, VOCAB]]}, {"_suppressed": [5]}, {"_suppressed": [[1, 2, 3]]}, {"_suppressed": 5},
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
    """Requests with the allowed range of their status; all except the first few send the token."""
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
    """Every malformed request, then random bytes and truncated requests."""
    rng = random.Random(0)
    cases = [data for data, _ in malformed(digest)]
    yield from cases[:n]
    for i in range(n - len(cases)):
        data = rng.choice(cases)
        yield rng.randbytes(rng.randrange(1, 300)) if i % 2 else data[: rng.randrange(len(data))]

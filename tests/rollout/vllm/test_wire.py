"""The wire format round-trips, and other libraries can read it."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from reft_pl.rollout.vllm.wire import (
    RequestMessage,
    completion_from_json,
    completion_to_json,
    read_weights,
    request_to_json,
    weights_message,
)
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason

WEIGHTS = [("z.weight", torch.randn(3, 4).bfloat16()), ("a", torch.randn(5)), ("view", torch.randn(4, 2).t())]


def written(folder: Path, data: bytes) -> Path:
    path = folder / "weights"
    path.write_bytes(data)
    return path


def test_weights_round_trip_bitwise_and_in_order(tmp_path: Path) -> None:
    size, pieces = weights_message(WEIGHTS)
    data = b"".join(pieces)
    assert len(data) == size
    back = list(read_weights(written(tmp_path, data)))
    assert [name for name, _ in back] == [name for name, _ in WEIGHTS]
    for (_, sent), (_, came) in zip(WEIGHTS, back, strict=True):
        assert came.dtype == sent.dtype
        assert torch.equal(came, sent)


def test_the_wire_format_is_a_safetensors_file() -> None:
    theirs = safetensors.torch.load(b"".join(weights_message(WEIGHTS)[1]))
    assert {name: tensor.tolist() for name, tensor in theirs.items()} == {name: t.tolist() for name, t in WEIGHTS}


@pytest.mark.parametrize("kept", [4, 40, -3])
def test_truncated_weights_raise(kept: int, tmp_path: Path) -> None:
    data = b"".join(weights_message(WEIGHTS)[1])
    with pytest.raises(SafetensorError):
        list(read_weights(written(tmp_path, data[:kept])))


def test_another_file_format_raises(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError):
        list(read_weights(written(tmp_path, b"\xff" * 64)))


def test_requests_and_completions_round_trip() -> None:
    params = SamplingParams(5, 0.7, 3, 0.9, suppressed=((3, 5), (9, 12)))
    request = SampleRequest("0:x", (1, 2), params, (2**64 - 1, 0), eos_ids=(2, 7))
    completion = Completion("0:x", 1, (7, 2), (-0.1, -1e-7), StopReason.EOS)
    assert RequestMessage.model_validate_json(json.dumps(request_to_json(request))).request() == request
    assert completion_from_json(json.loads(json.dumps(completion_to_json(completion)))) == completion

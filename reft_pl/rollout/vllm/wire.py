"""What passes between a trainer and a rollout engine behind HTTP: weights as safetensors, requests and completions as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Number formats by their names in safetensors."""

MAX_HEADER = 2**27
"""Bytes; a header that claims more is none."""


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""


def weights_message(weights: Iterable[tuple[str, Tensor]]) -> tuple[int, Iterator[bytes]]:
    """A safetensors file: how many bytes it has, and its pieces, so that no second copy of the weights is made.

    ``weights`` are gone through once for the header and once for the pieces.
    """
    header, size = _header(weights)
    pieces = (tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes() for _, tensor in weights)
    return len(header) + size, chain([header], pieces)


def read_weights(file: Readable) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file in the order in which they lie there, each read when it is asked for.

    Raises:
        ValueError: this is no such file.
        EOFError: it ends before its time.
    """
    size = int.from_bytes(_read(file, 8), "little")
    if size > MAX_HEADER:
        raise ValueError("not a safetensors file")
    entries: dict[str, Any] = json.loads(_read(file, size))
    entries.pop("__metadata__", None)
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: int(item[1]["data_offsets"][0])):
        start, end = entry["data_offsets"]
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        if start != position or end - start != dtype.itemsize * int(torch.Size(shape).numel()):
            raise ValueError(f"the offsets of {name} are wrong")
        position = end
        yield name, torch.frombuffer(bytearray(_read(file, end - start)), dtype=dtype).view(shape)


def _header(weights: Iterable[tuple[str, Tensor]]) -> tuple[bytes, int]:
    """With its length before it; and how many bytes of tensors follow."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    entries, position = {}, 0
    for name, tensor in weights:
        end = position + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, position


def _read(file: Readable, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError("the connection ended in the middle of the weights")
    return data


def request_to_json(request: SampleRequest) -> dict[str, Any]:
    """A request as JSON can say it."""
    return asdict(request)


def request_from_json(item: Mapping[str, Any]) -> SampleRequest:
    """What ``request_to_json`` was given."""
    ids, seeds, eos_ids = (tuple(map(int, item[name])) for name in ("prompt_ids", "seeds", "eos_ids"))
    return SampleRequest(str(item["id"]), ids, SamplingParams(**item["params"]), seeds, eos_ids=eos_ids)


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """A completion as JSON can say it; numbers come back bit for bit."""
    return asdict(completion) | {"stop": completion.stop.value}


def completion_from_json(item: Mapping[str, Any]) -> Completion:
    """What ``completion_to_json`` was given."""
    tokens, logprobs = tuple(map(int, item["token_ids"])), tuple(map(float, item["logprobs"]))
    return Completion(str(item["request_id"]), int(item["index"]), tokens, logprobs, StopReason(item["stop"]))

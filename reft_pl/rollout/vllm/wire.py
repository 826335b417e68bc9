"""The wire format between trainer and rollout server: weights as safetensors, requests and completions as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from torch import Tensor

from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Dtypes by their names in safetensors."""

_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_Seed = Annotated[int, Field(ge=0, lt=2**64)]


class _Message(BaseModel):
    """Strictly validated JSON: no extra fields, no type conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ModelMessage(_Message):
    """The body of ``PUT /model``."""

    config: dict[str, Any]
    dtype: Literal["float32", "bfloat16", "float16"]


class _Params(_Message):
    max_new_tokens: int = Field(ge=1, lt=2**31)
    temperature: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=0, ge=0, lt=2**31)
    top_p: float = Field(default=1.0, gt=0, le=1)
    record_values: Literal[False] = False  # engines have no value head
    suppressed: tuple[tuple[_TokenId, _TokenId], ...] = Field(default=(), max_length=2**16)


class RequestMessage(_Message):
    """A ``SampleRequest``."""

    id: str = Field(max_length=1000)
    prompt_ids: tuple[_TokenId, ...] = Field(min_length=1)
    params: _Params
    seeds: tuple[_Seed, ...] = Field(max_length=2**16)
    eos_ids: tuple[_TokenId, ...] = Field(max_length=2**10)

    def request(self) -> SampleRequest:
        """Convert to a ``SampleRequest``; the inverse of ``request_to_json``."""
        params = SamplingParams(**self.params.model_dump())
        return SampleRequest(self.id, self.prompt_ids, params, self.seeds, eos_ids=self.eos_ids)


class CompletionsMessage(_Message):
    """The body of ``POST /completions``: what to sample, and the digest of the weights to sample with."""

    digest: str = Field(max_length=1000)
    requests: list[RequestMessage]


def weights_message(weights: Iterable[tuple[str, Tensor]]) -> tuple[int, Iterator[bytes]]:
    """Encode weights as a safetensors file: return its size in bytes and its pieces, without a second copy of the weights.

    ``weights`` is iterated twice, for the header and for the pieces.
    """
    header, size = _header(weights)
    pieces = (tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes() for _, tensor in weights)
    return len(header) + size, chain([header], pieces)


def read_weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a safetensors file lazily, in file order.

    Raises:
        SafetensorError: The file is not a safetensors file.
    """
    with safe_open(path, framework="pt") as file:
        for name in file.offset_keys():
            yield name, file.get_tensor(name)


def _header(weights: Iterable[tuple[str, Tensor]]) -> tuple[bytes, int]:
    """Return the header, prefixed with its length, and the size of the tensors that follow, in bytes."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    entries, position = {}, 0
    for name, tensor in weights:
        end = position + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, position


def request_to_json(request: SampleRequest) -> dict[str, Any]:
    """Convert a request to JSON types."""
    return asdict(request)


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """Convert a completion to JSON types; numbers survive the round trip bit for bit."""
    return asdict(completion) | {"stop": completion.stop.value}


def completion_from_json(item: Mapping[str, Any]) -> Completion:
    """Convert back; the inverse of ``completion_to_json``."""
    tokens, logprobs = tuple(map(int, item["token_ids"])), tuple(map(float, item["logprobs"]))
    return Completion(str(item["request_id"]), int(item["index"]), tokens, logprobs, StopReason(item["stop"]))

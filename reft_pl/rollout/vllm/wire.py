"""What passes between a trainer and a rollout engine behind HTTP: weights as safetensors, requests and completions as JSON."""

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
    """JSON in exactly the given form: no other fields, no conversions, no NaN."""

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
        """What ``request_to_json`` was given."""
        params = SamplingParams(**self.params.model_dump())
        return SampleRequest(self.id, self.prompt_ids, params, self.seeds, eos_ids=self.eos_ids)


class CompletionsMessage(_Message):
    """The body of ``POST /completions``: what to sample, and the digest of the weights to sample with."""

    digest: str = Field(max_length=1000)
    requests: list[RequestMessage]


def weights_message(weights: Iterable[tuple[str, Tensor]]) -> tuple[int, Iterator[bytes]]:
    """A safetensors file: how many bytes it has, and its pieces, so that no second copy of the weights is made.

    ``weights`` are gone through once for the header and once for the pieces.
    """
    header, size = _header(weights)
    pieces = (tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes() for _, tensor in weights)
    return len(header) + size, chain([header], pieces)


def read_weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file in the order in which they lie there, each read when it is asked for.

    Raises:
        SafetensorError: this is no such file.
    """
    with safe_open(path, framework="pt") as file:
        for name in file.offset_keys():
            yield name, file.get_tensor(name)


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


def request_to_json(request: SampleRequest) -> dict[str, Any]:
    """A request as JSON can say it."""
    return asdict(request)


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """A completion as JSON can say it; numbers come back bit for bit."""
    return asdict(completion) | {"stop": completion.stop.value}


def completion_from_json(item: Mapping[str, Any]) -> Completion:
    """What ``completion_to_json`` was given."""
    tokens, logprobs = tuple(map(int, item["token_ids"])), tuple(map(float, item["logprobs"]))
    return Completion(str(item["request_id"]), int(item["index"]), tokens, logprobs, StopReason(item["stop"]))

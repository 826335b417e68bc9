"""What a rollout server expects of a model's weights and requests, known from the model's config alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING

from reft_pl.errors import UserError, described
from reft_pl.models.activations import empty_model
from reft_pl.rollout.vllm.wire import DTYPES, read_weights
from reft_pl.types import SampleRequest

_HEADER_BYTES = 4096, 512
"""Room in the header of a weights file: in all, and for each tensor."""


class ModelSpec:
    """Names and shapes of a model's weights, and its vocabulary. Code that a config names is never run.

    Args:
        config: The model's ``config.json`` as ``transformers`` writes it.
        dtype: Dtype of weights and activations, as torch names it without ``torch.``.

    Raises:
        ValueError: no causal language model has this config.
    """

    def __init__(self, config: Mapping[str, Any], dtype: str) -> None:
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise ValueError(f"the model_type {kind!r} is unknown to transformers here")
        try:
            lm = empty_model(CONFIG_MAPPING[kind].from_dict(dict(config)), getattr(torch, dtype))
            self.shapes = {name: list(parameter.shape) for name, parameter in lm.named_parameters()}
            self.vocab_size = int(lm.get_input_embeddings().get_parameter("weight").shape[0])
        except UserError as error:
            raise ValueError(str(error)) from error
        except Exception as error:  # a config can be wrong in as many ways as there are models
            raise ValueError(f"no model of the kind {kind!r} has this config ({described(error)})") from error
        numbers = sum(map(prod, self.shapes.values()))
        self.max_bytes = 4 * numbers + _HEADER_BYTES[0] + _HEADER_BYTES[1] * len(self.shapes)
        """Bytes that a file with all weights may have."""

    def check_weights(self, path: Path) -> None:
        """Check a safetensors file: all weights of this model and no others, each with its shape, all finite.

        Raises:
            ValueError: it is not such a file.
        """
        try:
            with safe_open(path, framework="pt") as file:  # checks the header against the file's size
                found = {
                    name: (file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()) for name in file.offset_keys()
                }
        except (SafetensorError, OSError) as error:
            raise ValueError(f"the weights are not a safetensors file ({described(error)})") from error
        for name in sorted(found.keys() ^ self.shapes.keys()):
            raise ValueError(f"the model has no weight {name[:200]!r}" if name in found else f"the weight {name!r} is missing")
        for name, (shape, dtype) in found.items():
            if shape != self.shapes[name] or dtype not in DTYPES:
                raise ValueError(f"the weight {name!r} is {dtype} {shape}, and the model's is {self.shapes[name]}")
        for name, tensor in read_weights(path):
            if not torch.isfinite(tensor).all():
                raise ValueError(f"the weight {name!r} has numbers that are not finite")

    def check_requests(self, requests: Sequence[SampleRequest], max_model_len: int) -> None:
        """Check that prompts consist of the model's tokens and that completions have room.

        Raises:
            ValueError: a request does not fit.
        """
        for request in requests:
            if max(*request.prompt_ids, *request.eos_ids, 0) >= self.vocab_size:
                raise ValueError(f"request {request.id!r} has token ids outside the vocabulary of {self.vocab_size}")
            spans = request.params.suppressed
            if any(not start < end <= self.vocab_size for start, end in spans):
                raise ValueError(f"request {request.id!r} suppresses ids outside the vocabulary of {self.vocab_size}")
            if sum(end - start for start, end in spans) >= self.vocab_size:
                raise ValueError(f"request {request.id!r} suppresses the whole vocabulary of {self.vocab_size}")
            tokens = len(request.prompt_ids) + request.params.max_new_tokens
            if tokens > max_model_len:
                raise ValueError(f"request {request.id!r} may take {tokens} tokens, and the engine {max_model_len}")

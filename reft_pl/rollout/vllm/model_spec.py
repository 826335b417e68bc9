"""Validate weights and requests for a rollout server against the model's config."""

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
"""Maximum size of the header of a weights file: a constant part, and a part per tensor."""


class ModelSpec:
    """Names and shapes of a model's weights, and its vocabulary size. Custom code named in a config is never run.

    Args:
        config: The model's ``config.json`` as ``transformers`` writes it.
        dtype: Dtype of weights and activations by its torch name, such as ``bfloat16``.

    Raises:
        ValueError: The config is not that of a causal language model.
    """

    def __init__(self, config: Mapping[str, Any], dtype: str) -> None:
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise ValueError(f"the server's version of transformers does not know the model_type {kind!r}")
        try:
            lm = empty_model(CONFIG_MAPPING[kind].from_dict(dict(config)), getattr(torch, dtype))
            self.shapes = {name: list(parameter.shape) for name, parameter in lm.named_parameters()}
            self.vocab_size = int(lm.get_input_embeddings().get_parameter("weight").shape[0])
        except UserError as error:
            raise ValueError(str(error)) from error
        except Exception as error:  # invalid configs raise anything, depending on the model
            raise ValueError(f"the config is invalid for the model_type {kind!r} ({described(error)})") from error
        numbers = sum(map(prod, self.shapes.values()))
        self.max_bytes = 4 * numbers + _HEADER_BYTES[0] + _HEADER_BYTES[1] * len(self.shapes)
        """Maximum size of a file with all weights."""

    def check_weights(self, path: Path) -> None:
        """Check that a safetensors file has exactly the weights of this model, with the right shapes and finite values.

        Raises:
            ValueError: It does not.
        """
        try:
            with safe_open(path, framework="pt") as file:  # checks the header against the file's size
                found = {
                    name: (file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()) for name in file.offset_keys()
                }
        except (SafetensorError, OSError) as error:
            raise ValueError(f"the weights are not a valid safetensors file ({described(error)})") from error
        for name in sorted(found.keys() ^ self.shapes.keys()):
            raise ValueError(f"the model has no weight {name[:200]!r}" if name in found else f"the weight {name!r} is missing")
        for name, (shape, dtype) in found.items():
            if shape != self.shapes[name] or dtype not in DTYPES:
                raise ValueError(
                    f"the weight {name!r} must be {', '.join(DTYPES)} with shape {self.shapes[name]}, got {dtype} {shape}"
                )
        for name, tensor in read_weights(path):
            if not torch.isfinite(tensor).all():
                raise ValueError(f"the weight {name!r} has values that are not finite")

    def check_requests(self, requests: Sequence[SampleRequest], max_model_len: int) -> None:
        """Check that token ids are in the vocabulary, and that prompts and completions fit into the engine.

        Raises:
            ValueError: A request is invalid.
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
                raise ValueError(f"request {request.id!r} may take {tokens} tokens, and the engine allows {max_model_len}")

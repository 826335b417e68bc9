"""Digests that identify a model's weights."""

from __future__ import annotations

from hashlib import blake2b

import torch
from transformers import PreTrainedModel

from reft_pl.models.adapters import plain_weights
from reft_pl.models.policy import Policy


def fingerprint(policy: Policy) -> str:
    """Return a bitwise digest of the language model's weights: names, dtypes, shapes and values."""
    digest = blake2b(digest_size=16)
    for name, tensor in policy.weights():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_id(lm: PreTrainedModel) -> str:
    """Return a digest of the values of a model's weights, equal in every dtype that represents them exactly.

    bfloat16 weights keep their digest when loaded as float32; float32 weights rounded to bfloat16 do not. Adapters count as
    merged.
    """
    digest = blake2b(digest_size=16)
    for name, tensor in plain_weights(lm):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()

"""Telling whether two models are the same."""

from __future__ import annotations

from hashlib import blake2b

import torch
from transformers import PreTrainedModel

from reft_pl.models.adapters import plain_weights
from reft_pl.models.policy import Policy


def fingerprint(policy: Policy) -> str:
    """A digest of the language model's weights, bit for bit."""
    digest = blake2b(digest_size=16)
    for name, tensor in policy.weights():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_id(lm: PreTrainedModel) -> str:
    """A digest of the values of a model's weights: the same in every number format that holds them exactly.

    So bfloat16 weights are known again where they are loaded as float32, and float32 weights are other ones in bfloat16.
    Those of a model with adapters are what merging gives.
    """
    digest = blake2b(digest_size=16)
    for name, tensor in plain_weights(lm):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()

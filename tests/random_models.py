"""Tiny random models with distributions that are neither flat nor one-hot."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


def random_model(config: PreTrainedConfig, std: float = 0.2, seed: int = 0) -> PreTrainedModel:
    """Build a float32 model with weights so large that a wrong window, mask or state changes every distribution.

    Args:
        config: Of a causal language model.
        std: Of all weights with two dimensions or more; the usual 0.02 makes distributions nearly uniform, which hides errors.
        seed: Seeds the global generator.
    """
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, std)
    return model

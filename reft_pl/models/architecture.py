"""Architecture differences between language models: nested text configs, the trunk, and rotary position factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the decoder's configuration, which multimodal models nest in theirs."""
    nested: PreTrainedConfig = config.get_text_config(decoder=True)
    return nested


def trunk_of(lm: PreTrainedModel) -> nn.Module:
    """Return the model without its LM head: the module that returns ``last_hidden_state``.

    The text-only Llama 4 class stores its trunk under a name that ``base_model`` does not look for.
    """
    trunk: nn.Module = lm.base_model
    if trunk is lm:
        return next((child for child in lm.children() if isinstance(child, PreTrainedModel)), lm)
    return trunk


def rotary_limit(config: PreTrainedConfig) -> int | None:
    """Return the sequence length, in tokens, up to which rotary factors are constant; None if they never change.

    Beyond this length, dynamic NTK and longrope change the rotation angles of all positions. Keys already in the KV cache keep
    the old angles, and a token's log-probability then depends on the length of the text after it.
    """
    text = text_config(config)
    limits = []
    for rope in _rope_settings(text):
        kind = str(rope.get("rope_type") or rope.get("type"))
        if kind == "longrope":
            original = rope.get("original_max_position_embeddings")
            limits.append(original or getattr(text, "original_max_position_embeddings", text.max_position_embeddings))
        elif "dynamic" in kind:  # YaRN, linear and Llama-3 scaling are fixed
            limits.append(text.max_position_embeddings)
    return min(limits, default=None)


def _rope_settings(text: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """Return the model's rope settings, followed by those of each layer type if they differ (Gemma 3)."""
    settings = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [rope for rope in settings.values() if isinstance(rope, Mapping)]
    return [settings, *nested]


@torch.no_grad()
def restore_rotary(network: nn.Module) -> None:
    """Reset the rotary factors to those of short sequences; dynamic NTK keeps the long ones for too long."""
    for module in network.modules():
        if not hasattr(module, "max_seq_len_cached"):
            continue
        for name in [*vars(module), *module._buffers]:
            if name.endswith("original_inv_freq"):
                prefix = name.removesuffix("original_inv_freq")
                current = getattr(module, f"{prefix}inv_freq")
                setattr(module, f"{prefix}inv_freq", getattr(module, name).to(current.device))
                if hasattr(module, f"{prefix}max_seq_len_cached"):
                    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

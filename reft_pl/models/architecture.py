"""What a configuration says of a language model's text part: its trunk, its rotary positions, its attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the decoder, which multimodal models nest in theirs."""
    nested: PreTrainedConfig = config.get_text_config(decoder=True)
    return nested


def trunk_of(lm: PreTrainedModel) -> nn.Module:
    """The model without its LM head: what returns ``last_hidden_state``.

    The text-only class of Llama 4 has its trunk under another name than ``base_model`` looks for.
    """
    trunk: nn.Module = lm.base_model
    if trunk is lm:
        return next((child for child in lm.children() if isinstance(child, PreTrainedModel)), lm)
    return trunk


def rotary_limit(config: PreTrainedConfig) -> int | None:
    """The longest text, in tokens, that has the rotary factors of short texts; None if no factor depends on the length.

    Beyond it, dynamic NTK and longrope turn all positions by other angles. Cached keys have the former ones, and the
    log-probability of a token depends on the text after it.
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
    """The rope settings of a model; of each kind of layer where they differ, as in Gemma 3."""
    settings = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [rope for rope in settings.values() if isinstance(rope, Mapping)]
    return [settings, *nested]


@torch.no_grad()
def restore_rotary(network: nn.Module) -> None:
    """Give back the rotary factors of short texts, which dynamic NTK keeps too long after a long one."""
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

"""Load policies from a hub id or a folder."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from reft_pl.errors import UserError, described, first_line
from reft_pl.hub import BAD_VALUE, unusable_config
from reft_pl.models.adapter_folder import AdapterFolder, locate_weights
from reft_pl.models.adapters import add_adapters
from reft_pl.models.compilation import compile_layers
from reft_pl.models.finite import refuse_not_finite
from reft_pl.models.policy import Policy, ValueKind
from reft_pl.models.pretrained import load_config, load_pretrained, made_from, refuse_unplaced, supported_attention
from reft_pl.models.settings import PolicySettings
from reft_pl.models.stored_weights import StoredWeights
from reft_pl.models.value_file import restore_value

_ADVICE = "reft-pl trains decoder-only language models, so choose one of these"

_CausalLM: Any = AutoModelForCausalLM  # its class methods are untyped


def load_policy(settings: PolicySettings, value: ValueKind = "none", seed: int = 0) -> Policy:
    """Load or randomly initialize a policy, in eval mode and on the CPU.

    If ``value`` asks for a value function and the folder holds one, from an earlier run or as TRL's value head, it is restored.
    Stored adapters are merged into their base model; ``settings.lora`` adds new ones on top.

    Args:
        settings: Source of the model, dtype and other settings.
        value: Which value function the policy has.
        seed: Seeds the weights with ``from_scratch`` and the adapters with ``lora``. The global generator is not touched.

    Raises:
        UserError: The model is not found, the hub is unreachable, weights are unreadable, incomplete or not finite, the model
            is not a decoder-only language model, or ``lora`` does not fit the other settings.
    """
    source, options, adapter = locate_weights(settings.init_from, settings.trust_remote_code)
    _check_lora(settings, value, adapter)
    config = _load_config(source, options)
    stored = None if settings.from_scratch else StoredWeights(source, options)
    lm = _draw(config, settings, seed) if stored is None else _load_weights(stored, config, settings)
    if stored is not None and adapter is not None:
        adapter.merge_into(lm)
        stored = StoredWeights(adapter.source, adapter.options)  # the value function is stored next to the adapters
    refuse_not_finite(settings.init_from, lm)
    with made_from(settings.init_from):
        policy = Policy(lm, value, settings.gradient_checkpointing).eval()
    _check_decoder_only(policy, settings.init_from)
    if stored is not None:
        restore_value(policy, stored)
        refuse_not_finite(settings.init_from, policy.value_parameters())
    if settings.lora is not None:
        add_adapters(policy.lm, settings.lora, seed)
    if settings.compile:
        compile_layers(policy)
        # Shared attention splits a layer's graph, and a checkpointed layer must be one graph.
        policy.shares_prompts = policy.shares_prompts and not settings.gradient_checkpointing
    return policy


def _check_lora(settings: PolicySettings, value: ValueKind, adapter: AdapterFolder | None) -> None:
    """Reject settings that adapters cannot be combined with, before loading any weights."""
    if settings.lora is None:
        return
    if settings.from_scratch:
        raise UserError("policy.lora adapts trained weights and policy.from_scratch draws new ones: choose one of the two")
    if value == "separate":
        raise UserError(
            "model.separate_value_model trains a full second model, which policy.lora is meant to avoid: choose one of the two"
        )
    if settings.lora.export == "adapter" and adapter is not None:
        raise UserError(
            f"{settings.init_from} holds adapters, and other programs cannot load more adapters on top: set "
            "policy.lora.export to merged, or start from a merged export"
        )


def _load_config(source: str, options: dict[str, Any]) -> PreTrainedConfig:
    config = load_config(source, options)
    if config.is_encoder_decoder:
        raise UserError(f"{source} is an encoder-decoder ({config.model_type}): {_ADVICE}.")
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        if getattr(config, "is_decoder", False):
            raise UserError(f"{source} is an encoder configured as a decoder ({config.model_type}): {_ADVICE}.")
        raise UserError(f"{source} is not causal (an encoder, {config.model_type}): {_ADVICE}.")
    own_code = options.get("trust_remote_code") and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not own_code:
        raise UserError(f"{source} is not a causal language model ({config.model_type}): {_ADVICE}.")
    return config


def _draw(config: PreTrainedConfig, settings: PolicySettings, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            lm: PreTrainedModel = _CausalLM.from_config(
                config,
                dtype=torch.float32,
                attn_implementation=supported_attention(_CausalLM, config, settings.attention),
                trust_remote_code=settings.trust_remote_code,
            )
        except (ValueError, ImportError) as error:
            raise UserError(f"Cannot build a model from {settings.init_from}: {first_line(error)}.") from error
        except BAD_VALUE as error:
            raise unusable_config(settings.init_from, error) from error
    for parameter in lm.parameters():  # lm.to(dtype) would also round the rotary frequencies
        parameter.data = parameter.data.to(settings.torch_dtype)
    lm.config.dtype = settings.torch_dtype
    return lm


def _load_weights(stored: StoredWeights, config: PreTrainedConfig, settings: PolicySettings) -> PreTrainedModel:
    advice = "set from_scratch: true to draw weights for a folder without any"
    loaded = load_pretrained(_CausalLM, stored, config, settings.torch_dtype, settings.attention, advice)
    if loaded.missing:
        name = min(loaded.missing)
        raise UserError(
            f"{stored.source} lacks weights of a language model, such as {name}: it may be a classifier or a bare trunk, so "
            "choose a language model."
        )
    refuse_unplaced(stored.source, loaded)
    return loaded.model


@torch.no_grad()
def _check_decoder_only(policy: Policy, source: str) -> None:
    """Reject architectures that ``Policy`` computes differently: non-causal ones, or with other hidden states or logits.

    The check runs forward passes of four tokens. One pass replaces the LM head's output with large values, because scaling and
    soft-capping are invisible in the logits of a model with small weights.

    Raises:
        UserError: The model is not causal, or transforms hidden states or logits in a way that ``Policy`` does not.
    """
    kind = policy.lm.config.model_type
    ids = torch.tensor([[1, 2, 3, 4]], device=policy.device) % policy.vocab_size
    real = torch.ones_like(ids, dtype=torch.bool)
    unknown = UserError(f"{source} ({kind}) transforms its logits in a way that reft-pl does not support: {_ADVICE}.")
    try:
        hidden = policy.hidden_states(ids, real)
        shorter = policy.hidden_states(ids[:, :3], real[:, :3])
        logits = policy.lm(input_ids=ids, use_cache=False).logits
    except BAD_VALUE as error:
        raise UserError(
            f"{source} ({kind}) fails to run ({described(error)}): check its config.json, or choose another model."
        ) from error
    tolerance = 1e-3 if hidden.dtype == torch.float32 else 5e-2
    if _distance(shorter, hidden[:, :3]) > tolerance:
        raise UserError(f"{source} is not causal (tokens attend to later ones): {_ADVICE}.")
    if hidden.shape[-1] != policy.hidden_size:
        raise unknown
    if _distance(policy.logits(hidden), logits) > tolerance:
        raise unknown
    large = torch.linspace(-60, 60, 4 * policy.vocab_size, dtype=hidden.dtype, device=hidden.device).view(1, 4, -1)
    head = policy.lm_head.register_forward_hook(partial(_replaced, large))
    try:
        changed = policy.lm(input_ids=ids, use_cache=False).logits
    finally:
        head.remove()
    if _distance(policy.capped(large), changed) > tolerance:
        raise unknown


def _replaced(output: Tensor, module: nn.Module, args: tuple[Tensor, ...], own: Tensor) -> Tensor:
    """Forward hook that replaces a module's output with ``output``."""
    return output


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm().clamp_min(1e-12))

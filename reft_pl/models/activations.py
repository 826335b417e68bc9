"""Measure activation memory by running a model on the ``meta`` device.

Tensors on ``meta`` have shapes but no data. Autograd saves the same tensors there as on any other device, so the measurement
covers every architecture, adapters and frozen weights included.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from reft_pl.errors import UserError, described, first_line
from reft_pl.hub import BAD_VALUE
from reft_pl.models.adapters import add_adapters
from reft_pl.models.architecture import trunk_of
from reft_pl.models.compilation import transformer_layers
from reft_pl.models.pretrained import supported_attention
from reft_pl.models.settings import LoRASettings

FUSED, EAGER = "reft_pl_fused", "reft_pl_eager"
"""Attention functions for meta tensors. They take no mask, because building one reads tensor values."""

_AutoModel: Any = AutoModelForCausalLM


@dataclass(frozen=True)
class Activations:
    """Bytes of saved tensors between the forward and backward pass of one micro-batch.

    Args:
        layers: Bytes saved by each transformer layer.
        inputs: Bytes of each layer's input, the only tensor saved with activation checkpointing.
        rest: Bytes saved outside the layers: embeddings and final norm.
    """

    layers: tuple[int, ...]
    inputs: tuple[int, ...]
    rest: int

    def kept(self, recompute: bool) -> int:
        """Return the bytes saved when the backward pass begins; ``recompute`` means activation checkpointing."""
        return self.rest + sum(self.inputs if recompute else self.layers)

    @property
    def largest_layer(self) -> int:
        """Bytes of the largest layer: the extra memory needed to recompute one layer or run it backwards."""
        return max(self.layers, default=0)


def empty_model(
    config: PreTrainedConfig, dtype: torch.dtype, lora: LoRASettings | None = None, attention: str = "sdpa"
) -> PreTrainedModel:
    """Build a model on the ``meta`` device from its configuration, with adapters if ``lora`` is set.

    ``config`` is copied, not modified.

    Raises:
        UserError: The configuration does not describe a causal language model that supports ``attention``.
    """
    available = "eager" if attention == "eager" else "sdpa"  # other implementations may not be installed here
    implementation = supported_attention(_AutoModel, config, available)
    with torch.device("meta"):
        try:
            lm: PreTrainedModel = _AutoModel.from_config(
                deepcopy(config),
                dtype=dtype,
                attn_implementation=implementation,
                trust_remote_code=hasattr(config, "auto_map"),  # ``load_config`` keeps it for trusted models only
            )
        except (ValueError, ImportError) as error:
            raise UserError(f"cannot build a language model of type {config.model_type!r}: {first_line(error)}") from error
        except BAD_VALUE as error:
            raise UserError(
                f"cannot build a language model from config.json ({described(error)}): correct this value"
            ) from error
        if lora is not None:
            add_adapters(lm, lora, seed=0)
    return lm


def activations(lm: PreTrainedModel, rows: int, length: int) -> Activations:
    """Run a micro-batch through a meta-device model and sum what autograd saves, counting each storage once.

    sdpa and flash_attention_2 are modelled as one fused kernel that saves queries, keys, values and outputs. Eager attention
    also saves the attention weights.

    Args:
        lm: A model from ``empty_model``.
        rows: Number of sequences in the micro-batch.
        length: Tokens per sequence.
    """
    own = {_storage_id(tensor) for tensor in (*lm.parameters(), *lm.buffers())}
    kept: dict[int, Tensor] = {}  # keeps the tensors alive, so that no storage id is reused

    def pack(tensor: Tensor) -> Tensor:
        if _storage_id(tensor) not in own:
            kept.setdefault(_storage_id(tensor), tensor)
        return tensor

    layers: list[int] = []
    inputs: list[int] = []

    def total() -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0].numel() * args[0].element_size())
        layers.append(total())

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        layers[-1] = total() - layers[-1]

    for layer in transformer_layers(lm):
        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(leave)
    lm.set_attn_implementation(EAGER if lm.config._attn_implementation == "eager" else FUSED)
    ids = torch.zeros(rows, length, dtype=torch.int64, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # These attention functions ignore the mask, but without one models search the ids for padding.
        result = trunk_of(lm)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
    del result  # it keeps the graph alive, and the graph the saved tensors
    return Activations(tuple(layers), tuple(inputs), total() - sum(layers))


class FusedAttention(torch.autograd.Function):
    """Stand-in for a fused attention kernel: saves the same tensors for the backward pass, computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map [B, H, T, D] queries to [B, T, H, D] outputs; save one float32 log-sum-exp per query as well."""
        output = query.transpose(1, 2).contiguous()
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:3], dtype=torch.float32))
        return output


def _fused(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return FusedAttention.apply(query, key, value), None  # type: ignore[no-untyped-call]


def _eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    weights = (query @ key.transpose(2, 3)).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused)
AttentionInterface.register(EAGER, _eager)


def _storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

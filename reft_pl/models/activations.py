"""How much a model keeps for its backward pass, found by running it without numbers.

On torch's ``meta`` device tensors have shapes and no content: autograd decides there what it keeps as it does elsewhere,
whatever the architecture, adapters and frozen weights included.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from reft_pl.errors import UserError, first_line, told
from reft_pl.hub import BAD_VALUE
from reft_pl.models.adapters import add_adapters
from reft_pl.models.architecture import trunk_of
from reft_pl.models.compilation import transformer_layers
from reft_pl.models.pretrained import supported_attention
from reft_pl.models.settings import LoRASettings

FUSED, EAGER = "reft_pl_fused", "reft_pl_eager"
"""Attention functions for tensors without numbers. They have no masks, whose making looks at numbers."""

_AutoModel: Any = AutoModelForCausalLM


@dataclass(frozen=True)
class Activations:
    """Bytes that are kept from the forward to the backward pass of one micro-batch.

    Args:
        layers: Of each transformer layer.
        inputs: Of each layer's input, which is all that is kept of it where it is recomputed.
        rest: Of embeddings and last norm.
    """

    layers: tuple[int, ...]
    inputs: tuple[int, ...]
    rest: int

    def kept(self, recompute: bool) -> int:
        """What stands when the backward pass begins."""
        return self.rest + sum(self.inputs if recompute else self.layers)

    @property
    def largest_layer(self) -> int:
        """What a layer takes while it is gone through backwards, or made again."""
        return max(self.layers, default=0)


def empty_model(
    config: PreTrainedConfig, dtype: torch.dtype, lora: LoRASettings | None = None, attention: str = "sdpa"
) -> PreTrainedModel:
    """The model of a configuration without its weights, with adapters if it shall have some; ``config`` stays as it is.

    Raises:
        UserError: it is of no causal language model, or of one without this attention.
    """
    available = "eager" if attention == "eager" else "sdpa"  # the others need not be installed here
    implementation = supported_attention(_AutoModel, config, available)
    with torch.device("meta"):
        try:
            lm: PreTrainedModel = _AutoModel.from_config(
                deepcopy(config),
                dtype=dtype,
                attn_implementation=implementation,
                trust_remote_code=hasattr(config, "auto_map"),  # which ``load_config`` leaves to trusted models alone
            )
        except (ValueError, ImportError) as error:
            raise UserError(f"no language model can be made of the kind {config.model_type!r}: {first_line(error)}") from error
        except BAD_VALUE as error:
            raise UserError(f"no language model can be made of the config.json ({told(error)}): correct this value") from error
        if lora is not None:
            add_adapters(lm, lora, seed=0)
    return lm


def activations(lm: PreTrainedModel, rows: int, length: int) -> Activations:
    """Run a micro-batch through an empty model and add up what autograd keeps, each piece of memory once.

    The attention is the fused one of sdpa and flash_attention_2, which keeps queries, keys, values and result, but no scores;
    with ``eager`` these are kept.

    Args:
        lm: As ``empty_model`` gave it.
        rows: Sequences of the micro-batch.
        length: Tokens of each.
    """
    own = {_place(tensor) for tensor in (*lm.parameters(), *lm.buffers())}
    kept: dict[int, Tensor] = {}  # the tensors too, so that no place is given away again

    def pack(tensor: Tensor) -> Tensor:
        if _place(tensor) not in own:
            kept.setdefault(_place(tensor), tensor)
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
        # With a mask, which none of these attentions takes: without one, models look for padding among the ids.
        result = trunk_of(lm)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
    del result  # the graph until here holds what was kept
    return Activations(tuple(layers), tuple(inputs), total() - sum(layers))


class FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps for its backward pass; on tensors without numbers it has none to compute."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, H, T, D] queries to [B, T, H, D] results, and a float32 number a query beside."""
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


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

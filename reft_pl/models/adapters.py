"""Low-rank adapters (LoRA, arXiv 2106.09685) in a language model: added, switched off, merged.

They are put into the model in place, so that it stays the class that ``transformers`` made: scoring and sampling know nothing
of them. peft is imported where there are any, since it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from reft_pl.errors import UserError, first_line
from reft_pl.models.settings import LoRASettings

if TYPE_CHECKING:
    from peft import LoraConfig

NAME = "default"
"""What the only adapter of a model is called; peft leaves this name out of the files that it writes."""

_BASE = ".base_layer."


def add_adapters(lm: PreTrainedModel, settings: LoRASettings, seed: int) -> None:
    """Freeze the model and put adapters into its linear layers that change nothing before they are trained.

    Args:
        lm: The model; changed in place.
        settings: Which adapters, and where.
        seed: Of the half of each adapter that does not start at 0. The global generator is left alone.

    Raises:
        UserError: the names are of no layers, or of others than linear ones of the trunk.
    """
    from peft import LoraConfig  # noqa: PLC0415

    targets = settings.target_modules
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in lm.modules()),  # GPT-2 keeps its matrices transposed
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(lm, config, "policy.lora.target_modules")
    for target in () if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in adapted_layers(lm)):
            raise UserError(f"policy.lora.target_modules names {target!r}, which no linear layer of this model is called")


def inject(lm: PreTrainedModel, config: LoraConfig, where: str) -> None:
    """Put adapters into the model, in the number format of the weights beside them; ``where`` is what to blame.

    Raises:
        UserError: as ``add_adapters``.
    """
    from peft import inject_adapter_in_model  # noqa: PLC0415
    from peft.tuners.lora.layer import Linear  # noqa: PLC0415

    try:
        inject_adapter_in_model(config, lm, NAME)
    except ValueError as error:
        raise UserError(f"{where} cannot be had: {first_line(error)}") from error
    heads = {lm.get_input_embeddings(), lm.get_output_embeddings()}  # type: ignore[no-untyped-call]
    for name, layer in adapted_layers(lm).items():
        if type(layer) is not Linear or layer in heads:
            raise UserError(f"{where} names {name}: adapters go into the linear layers between embeddings and LM head")
        for part in (layer.lora_A, layer.lora_B):
            part.to(layer.weight.dtype)


def adapted_layers(lm: PreTrainedModel) -> dict[str, Any]:
    """The layers that have an adapter, by name; none for an ordinary model."""
    if not hasattr(lm, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    return {name: module for name, module in lm.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def adapters_off(lm: PreTrainedModel) -> Iterator[None]:
    """The model as it is without its adapters, inside; no second copy of anything."""
    layers = adapted_layers(lm).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def plain_weights(lm: PreTrainedModel, *, adapters: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The model's weights by the names that they have without adapters, one after another.

    Args:
        lm: The model, with or without adapters; left as it is.
        adapters: Whether they are merged into the weights that they adapt (these are then new tensors, on the CPU), or left
            out.
    """
    layers = adapted_layers(lm)
    if not layers:
        yield from lm.state_dict().items()
        return
    for name, tensor in lm.state_dict().items():
        owner, base, kind = name.partition(_BASE)
        if base:
            yield f"{owner}.{kind}", merged_weight(layers[owner]) if adapters and kind == "weight" else tensor
        elif not _of_adapter(name):
            yield name, tensor


def _of_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def plain_names(lm: PreTrainedModel) -> set[str]:
    """What ``plain_weights`` calls the parameters: no buffers, and of the names that share a parameter the first alone."""
    return {name.replace(_BASE, ".") for name, _ in lm.named_parameters() if not _of_adapter(name)}


@torch.no_grad()
def merge(lm: PreTrainedModel) -> None:
    """Put the adapters into the weights and take them out of the model, which is an ordinary one then."""
    for name, layer in adapted_layers(lm).items():
        base = layer.get_base_layer()
        base.weight.copy_(merged_weight(layer))
        parent, _, child = name.rpartition(".")
        setattr(lm.get_submodule(parent), child, base)
    if hasattr(lm, "peft_config"):
        del lm.peft_config
        lm.requires_grad_(True)  # peft froze what stood beside the adapters


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """W + alpha / r * B A, rounded once to the number format of W; on the CPU, wherever W is.

    So a merge at the end of training and one when the adapter is loaded agree to the bit, and a GPU that has no room for
    the weights a second time need not have it.
    """
    weight: Tensor = layer.get_base_layer().weight
    a: Tensor
    b: Tensor
    a, b = (part[NAME].weight.cpu().float() for part in (layer.lora_A, layer.lora_B))
    delta = b @ a * layer.scaling[NAME]
    if layer.fan_in_fan_out:
        delta = delta.T
    merged: Tensor = weight.cpu().float() + delta
    return merged.to(weight.dtype)

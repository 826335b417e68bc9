"""Add LoRA adapters (arXiv 2106.09685) to a language model, disable them, or merge them.

Adapters are injected in place and the model keeps its ``transformers`` class, so scoring and sampling need no special case.
peft takes seconds to import, so it is imported only for models with adapters.
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
"""peft's name for a model's only adapter; peft omits it from the keys of saved files."""

_BASE = ".base_layer."


def add_adapters(lm: PreTrainedModel, settings: LoRASettings, seed: int) -> None:
    """Freeze the model and add adapters to its linear layers; untrained adapters leave the outputs unchanged.

    Args:
        lm: The model, modified in place.
        settings: Rank, scale, dropout and target layers.
        seed: Seeds matrix A of each adapter (B starts at 0). The global generator is not touched.

    Raises:
        UserError: A target name matches no layer, or matches one that is not a linear layer of the trunk.
    """
    from peft import LoraConfig  # noqa: PLC0415

    targets = settings.target_modules
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in lm.modules()),  # GPT-2 stores transposed weights
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(lm, config, "policy.lora.target_modules")
    for target in () if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in adapted_layers(lm)):
            raise UserError(
                f"policy.lora.target_modules names {target!r}, which no linear layer of this model is called: correct it"
            )


def inject(lm: PreTrainedModel, config: LoraConfig, where: str) -> None:
    """Add adapters to the model in the dtype of the weights that they adapt; ``where`` starts error messages.

    Raises:
        UserError: As ``add_adapters``.
    """
    from peft import inject_adapter_in_model  # noqa: PLC0415
    from peft.tuners.lora.layer import Linear  # noqa: PLC0415

    try:
        inject_adapter_in_model(config, lm, NAME)
    except ValueError as error:
        raise UserError(f"{where} cannot be added to this model: {first_line(error)}") from error
    heads = {lm.get_input_embeddings(), lm.get_output_embeddings()}  # type: ignore[no-untyped-call]
    for name, layer in adapted_layers(lm).items():
        if type(layer) is not Linear or layer in heads:
            raise UserError(f"{where} names {name}: name only linear layers between the embeddings and the LM head")
        for part in (layer.lora_A, layer.lora_B):
            part.to(layer.weight.dtype)


def adapted_layers(lm: PreTrainedModel) -> dict[str, Any]:
    """Return the layers that have adapters, by name; empty for a model without adapters."""
    if not hasattr(lm, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    return {name: module for name, module in lm.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def adapters_off(lm: PreTrainedModel) -> Iterator[None]:
    """Disable the adapters inside the block, without copying any weight."""
    layers = adapted_layers(lm).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def plain_weights(lm: PreTrainedModel, *, adapters: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's weights under the names that they have without adapters.

    Args:
        lm: A model with or without adapters; not modified.
        adapters: True merges the adapters: adapted weights are then new tensors on the CPU. False omits the adapters.
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
    """Return the parameters' names in ``plain_weights``: no buffers, and only the first name of a shared parameter."""
    return {name.replace(_BASE, ".") for name, _ in lm.named_parameters() if not _of_adapter(name)}


@torch.no_grad()
def merge(lm: PreTrainedModel) -> None:
    """Merge the adapters into the weights and remove them, leaving an ordinary model."""
    for name, layer in adapted_layers(lm).items():
        base = layer.get_base_layer()
        base.weight.copy_(merged_weight(layer))
        parent, _, child = name.rpartition(".")
        setattr(lm.get_submodule(parent), child, base)
    if hasattr(lm, "peft_config"):
        del lm.peft_config
        lm.requires_grad_(True)  # peft froze the other weights


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """Return W + alpha / r * B A, rounded once to the dtype of W, on the CPU whatever the device of W.

    Merging at the end of training and merging on load therefore agree bitwise, and the GPU never holds a second copy of the
    weights.
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

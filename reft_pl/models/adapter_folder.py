"""LoRA adapters in peft's folder format, stored without their base model."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from reft_pl.damage import damage_in
from reft_pl.errors import UserError, first_line
from reft_pl.hub import locate, stored_file
from reft_pl.models.adapters import NAME, inject, merge
from reft_pl.resources import model_folder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."


class AdapterFolder:
    """Stored LoRA adapters and the name of their base model.

    Args:
        source: Folder or hub id, as returned by ``locate``.
        options: Loading options, as returned by ``locate``.

    Raises:
        UserError: The adapters are not plain LoRA, or do not name their base model.
    """

    def __init__(self, source: str, options: dict[str, Any]) -> None:
        from peft import LoraConfig, PeftConfig  # noqa: PLC0415 (takes seconds)

        self.source = source
        self.options = options
        try:
            config = PeftConfig.from_pretrained(str(_file(source, CONFIG_FILE, options).parent))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damage_in(source, CONFIG_FILE) or UserError(
                f"{source}/{CONFIG_FILE} cannot be read ({first_line(error)}): restore the file."
            ) from error
        special = isinstance(config, LoraConfig) and (
            config.use_dora or config.lora_bias or config.bias != "none" or config.modules_to_save or config.target_parameters
        )
        if isinstance(config, LoraConfig) and config.megatron_config is not None:  # peft would import the module that it names
            raise UserError(
                f"{source}/{CONFIG_FILE} names Megatron code to import ({config.megatron_core}): remove megatron_config."
            )
        if not isinstance(config, LoraConfig) or special:
            raise UserError(f"{source} holds adapters that are not plain LoRA: merge them into their base with peft first.")
        if not config.base_model_name_or_path:
            raise UserError(
                f"{source}/{CONFIG_FILE} does not name the adapters' base model: set base_model_name_or_path in it."
            )
        self.config = config
        self.base: str = config.base_model_name_or_path

    def merge_into(self, model: PreTrainedModel) -> None:
        """Merge the adapters into the weights of ``model``: their base model, or a classifier built on its trunk.

        Raises:
            UserError: The adapters are unreadable or do not fit the model.
        """
        from peft import set_peft_model_state_dict  # noqa: PLC0415

        try:
            stored = load_file(_file(self.source, WEIGHTS_FILE, self.options))
        except (OSError, SafetensorError) as error:
            raise damage_in(self.source, WEIGHTS_FILE) or UserError(
                f"the adapters in {self.source} cannot be read ({error}): save them again."
            ) from error
        inject(model, self.config, f"the adapters in {self.source}")
        try:
            result: Any = set_peft_model_state_dict(model, {n.removeprefix(_PREFIX): t for n, t in stored.items()}, NAME)
        except RuntimeError as error:
            raise UserError(
                f"the adapters in {self.source} do not fit {self.base} (shapes differ): correct {CONFIG_FILE}."
            ) from error
        absent = [name for name in result.missing_keys if ".lora_" in name]
        if absent or result.unexpected_keys:
            name = (absent or result.unexpected_keys)[0]
            raise UserError(f"the adapters in {self.source} do not fit {self.base} ({name}): correct base_model_name_or_path.")
        merge(model)


def locate_weights(name: str, trust_remote_code: bool = False) -> tuple[str, dict[str, Any], AdapterFolder | None]:
    """Locate a model's weights; if ``name`` holds adapters, locate their base model instead and return both.

    Args:
        name: Folder or hub id.
        trust_remote_code: Run Python code shipped with the model or with the adapters' base model.

    Returns:
        Source and loading options of the weights, as returned by ``locate``, and the adapters to merge, if any.

    Raises:
        UserError: As ``locate``, or the adapters' base model is itself a set of adapters.
    """
    source, options = locate(name, trust_remote_code)
    if stored_file(source, CONFIG_FILE, options) is None:
        return source, options, None
    adapter = AdapterFolder(source, options)
    base, base_options = locate(adapter.base, trust_remote_code)
    if stored_file(base, CONFIG_FILE, base_options) is not None:
        raise UserError(f"{name} holds adapters on {adapter.base}, also a set of adapters: merge those into their base first.")
    return base, base_options, adapter


def save_adapter(lm: PreTrainedModel, folder: Path, base: str) -> None:
    """Write a model's adapters so that peft, or ``transformers`` with peft installed, can load them onto their base model.

    Args:
        lm: A model with adapters; not modified.
        folder: Output folder.
        base: Folder or hub id of the base model that the adapters were trained on.
    """
    from peft import get_peft_model_state_dict  # noqa: PLC0415

    found = model_folder(base)
    config = copy(lm.peft_config[NAME])
    config.base_model_name_or_path = base if found is None else str(found.resolve())
    config.save_pretrained(str(folder))
    weights = get_peft_model_state_dict(lm, adapter_name=NAME)
    save_file(
        {f"{_PREFIX}{name}": t.cpu().contiguous() for name, t in weights.items()}, folder / WEIGHTS_FILE, {"format": "pt"}
    )


def _file(source: str, name: str, options: dict[str, Any]) -> Path:
    path = stored_file(source, name, options)
    if path is None:
        raise UserError(f"{source} has no {name}: the adapter folder is incomplete, so save it again.")
    return path

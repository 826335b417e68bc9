"""Adapters in a folder of their own, as peft writes them: what is trained, without the weights that it is trained beside."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from reft_pl.errors import UserError, first_line
from reft_pl.hub import locate, stored_file
from reft_pl.models.adapters import NAME, inject, merge
from reft_pl.resources import model_folder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."


class AdapterFolder:
    """Stored low-rank adapters.

    Args:
        source: Folder or hub id, as ``locate`` gave it.
        options: To load by, as ``locate`` gave them.

    Raises:
        UserError: they are of a kind that cannot be merged into linear layers, or do not say what they belong to.
    """

    def __init__(self, source: str, options: dict[str, Any]) -> None:
        from peft import LoraConfig, PeftConfig  # noqa: PLC0415 (takes seconds)

        self.source = source
        self.options = options
        try:
            config = PeftConfig.from_pretrained(str(_file(source, CONFIG_FILE, options).parent))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{source}/{CONFIG_FILE} cannot be read ({first_line(error)}).") from error
        special = isinstance(config, LoraConfig) and (
            config.use_dora or config.lora_bias or config.bias != "none" or config.modules_to_save or config.target_parameters
        )
        if isinstance(config, LoraConfig) and config.megatron_config is not None:  # peft would import the module it names
            raise UserError(
                f"{source}/{CONFIG_FILE} names code of Megatron's ({config.megatron_core}): remove megatron_config."
            )
        if not isinstance(config, LoraConfig) or special:
            raise UserError(f"{source} holds adapters that are not plain LoRA: merge them into their base with peft first.")
        if not config.base_model_name_or_path:
            raise UserError(
                f"{source}/{CONFIG_FILE} does not say which model the adapters belong to: set its base_model_name_or_path."
            )
        self.config = config
        self.base: str = config.base_model_name_or_path

    def merge_into(self, model: PreTrainedModel) -> None:
        """Add the adapters to the weights of their base model, language model or classifier on its trunk.

        Raises:
            UserError: the adapters are broken, or do not fit.
        """
        from peft import set_peft_model_state_dict  # noqa: PLC0415

        try:
            stored = load_file(_file(self.source, WEIGHTS_FILE, self.options))
        except (OSError, SafetensorError) as error:
            raise UserError(f"the adapters of {self.source} cannot be read ({error}).") from error
        inject(model, self.config, f"the adapters of {self.source}")
        try:
            result: Any = set_peft_model_state_dict(model, {n.removeprefix(_PREFIX): t for n, t in stored.items()}, NAME)
        except RuntimeError as error:
            raise UserError(f"the adapters of {self.source} are not of {self.base} (other shapes).") from error
        absent = [name for name in result.missing_keys if ".lora_" in name]
        if absent or result.unexpected_keys:
            raise UserError(f"the adapters of {self.source} are not of {self.base} ({(absent or result.unexpected_keys)[0]}).")
        merge(model)


def locate_weights(name: str, trust_remote_code: bool = False) -> tuple[str, dict[str, Any], AdapterFolder | None]:
    """Where the weights of a model are, by what ``locate`` says, and the adapters that belong on top of them, if any.

    Args:
        name: Folder or hub id.
        trust_remote_code: Run Python code that the model, or the base that its adapters name, comes with.

    Raises:
        UserError: as ``locate``; or the base of the adapters is itself one.
    """
    source, options = locate(name, trust_remote_code)
    if stored_file(source, CONFIG_FILE, options) is None:
        return source, options, None
    adapter = AdapterFolder(source, options)
    base, base_options = locate(adapter.base, trust_remote_code)
    if stored_file(base, CONFIG_FILE, base_options) is not None:
        raise UserError(f"{name} holds adapters of {adapter.base}, which are adapters too: merge those into their base first.")
    return base, base_options, adapter


def save_adapter(lm: PreTrainedModel, folder: Path, base: str) -> None:
    """Write the model's adapters so that peft, and ``transformers`` where peft is installed, load them with their base.

    Args:
        lm: The model with its adapters; left as it is.
        folder: Where to.
        base: Folder or hub id of the weights beside which they were trained.
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
        raise UserError(f"{source} has no {name}: it is no whole set of adapters.")
    return path

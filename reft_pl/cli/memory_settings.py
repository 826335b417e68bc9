"""Translate a run's config into the settings that determine its memory."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from reft_pl.errors import UserError
from reft_pl.models.adapter_folder import locate_weights
from reft_pl.models.memory import Run, parameters_of
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.pretrained import load_config
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.modules import PPOModule, RerankerModule, SFTModule
from reft_pl.resources import find
from reft_pl.rl.estimators import GAE
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.strategies import ZeRO

SHAPES = {
    "codellama-7b": "configs/models/codellama_7b",
    "galactica-6.7b": "configs/models/galactica_6_7b",
    "galactica-125m": "configs/models/galactica_125m",
}
"""Shipped configurations of the paper's models, by a part of their names, so that no hub request is needed."""


def ranks_of(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes over all nodes.

    Raises:
        UserError: The settings leave the number to the machine.
    """
    devices = trainer.get("devices", "auto")
    each = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 0
    if not each and trainer.get("strategy") not in (None, "auto"):
        raise UserError(f"trainer.devices is {devices!r}, which depends on the machine: give --gpus")
    return max(1, each) * int(trainer.get("num_nodes", 1))


def settings_of(config: Mapping[str, Any], gpus: int, *, gpu: bool = True) -> Run:
    """Return the settings that determine a run's memory.

    Args:
        config: The full config of `fit`.
        gpus: Number of ranks that share the batch.
        gpu: Whether the ranks are GPUs.
    """
    model, data, trainer = config["model"], config["data"], config["trainer"]
    stage, settings = _class_of(model, PPOModule), model["init_args"]
    if "micro_batch_tokens" not in settings:
        raise UserError(f"{stage.__name__} does not train: give `reft-pl memory` the config of a training stage")
    policy = dict(settings["policy"])
    if gpu and policy["dtype"] == "auto":
        policy["dtype"] = "bfloat16"  # the dtype of the target GPUs, not the fastest one of this machine
    lora = LoRASettings(**policy.pop("lora")) if policy.get("lora") else policy.pop("lora", None)
    zero, replicated = _strategy(trainer.get("strategy"), gpus)
    on_policy = issubclass(stage, PPOModule)
    sampled = data["batch_size"] * (settings.get("samples_per_problem") or 1)
    step = min(sampled, settings.get("minibatch_size") or sampled)
    if step < gpus:
        raise UserError(f"an optimizer step of {step} sequences cannot be shared by {gpus} GPUs: raise data.batch_size")
    sampler = settings.get("sampler") or {}
    rows = drafts = 0
    if issubclass(_class_of(sampler, InProcessSampler), InProcessSampler):
        # Validation also samples; in SFT only validation does.
        at_once = max(data["eval_batch_size"], 0 if issubclass(stage, SFTModule) else sampled)
        arguments = sampler.get("init_args") or {}
        rows = min(arguments.get("max_rows", 64), ceil(at_once / gpus))
        drafts = arguments.get("draft_tokens", 8)
    annotated = 0
    if settings.get("annotated_coef"):
        annotated = min(data["batch_size"], settings.get("annotated_batch_size") or step)
    estimator = _class_of(settings.get("advantages"), GAE)
    return Run(
        PolicySettings(**policy, lora=lora),
        max_tokens=data["max_tokens"],
        micro_batch_tokens=settings["micro_batch_tokens"],
        sequences=ceil(step / gpus),
        cache_rows=0 if issubclass(stage, RerankerModule) else rows,
        draft_tokens=drafts,
        annotated=ceil(annotated / gpus),
        reference=on_policy and (lora is None or bool(settings.get("teacher"))),
        teacher=parameters_of(shape_of(settings["teacher"], None)) if settings.get("teacher") else None,
        reference_offloaded=bool(settings.get("offload_reference")),
        value_trunk=bool(on_policy and settings.get("separate_value_model") and getattr(estimator, "uses_values", False)),
        rollouts=on_policy,
        optimizer=_optimizer(settings.get("optimizer"), zero),
        optimizer_offloaded=bool(((settings.get("optimizer") or {}).get("init_args") or {}).get("offload")),
        averaged=bool(settings.get("ema_decay")),
        gpus=gpus,
        zero=zero,
        replicated=replicated,
        gpu=gpu,
    )


def _class_of(settings: Mapping[str, Any] | None, default: type) -> type:
    """Return the class that a section names, so that subclasses are recognised; ``default`` if it names none.

    The parser has already imported it. A function, such as an optimizer factory, counts as ``object``.
    """
    if not settings or "class_path" not in settings:
        return default
    module, _, name = str(settings["class_path"]).rpartition(".")
    found = getattr(import_module(module), name)
    return found if isinstance(found, type) else object


def _optimizer(settings: Mapping[str, Any] | None, zero: int) -> str:
    """Return which optimizer states are kept, as ``Run.optimizer`` names them."""
    optimizer = _class_of(settings, MasterAdamW)
    if issubclass(optimizer, MasterAdamW):
        return "master"
    if issubclass(optimizer, torch.optim.SGD):
        return "none"
    return "master" if zero else "plain"


def _strategy(strategy: Any, gpus: int) -> tuple[int, bool]:
    """Return ZeRO's stage (0 for none), and whether gradients are averaged in buckets."""
    if isinstance(strategy, Mapping) and issubclass(_class_of(strategy, object), ZeRO):
        return (strategy.get("init_args") or {}).get("stage", 2), False
    return 0, gpus > 1


def shape_of(init_from: str, given: str | None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Load the model's configuration from a file, a folder, the shipped shapes, or the hub.

    Raises:
        UserError: No configuration was found.
    """
    if given is not None:
        path = Path(find(given))
        if path.is_file() and path.name != "config.json":
            raise UserError(f"--model_config is {given}: give a config.json, or its folder")
        return load_config(str(path.parent if path.is_file() else path), {"local_files_only": True})
    if not (Path(find(init_from)) / "config.json").is_file():
        for name, folder in SHAPES.items():
            if name in init_from.lower():
                return load_config(find(folder), {"local_files_only": True})
    source, hub_options, _ = locate_weights(init_from, trust_remote_code)
    return load_config(source, hub_options)

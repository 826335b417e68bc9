"""From the config of a run to what decides its memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from reft_pl.errors import UserError
from reft_pl.models.adapter_folder import locate_weights
from reft_pl.models.memory import Run
from reft_pl.models.pretrained import load_config
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.resources import find

SHAPES = {
    "codellama-7b": "configs/models/codellama_7b",
    "galactica-6.7b": "configs/models/galactica_6_7b",
    "galactica-125m": "configs/models/galactica_125m",
}
"""Models of the paper, by what their names have in common, whose shapes are known without asking the hub."""


def ranks_of(trainer: Mapping[str, Any]) -> int:
    """Processes that a trainer's settings ask for, over all nodes.

    Raises:
        UserError: they leave their number to the machine.
    """
    devices = trainer.get("devices", "auto")
    each = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 0
    if not each and trainer.get("strategy") not in (None, "auto"):
        raise UserError(f"trainer.devices is {devices!r}, which is for the machine to say: give --gpus")
    return max(1, each) * int(trainer.get("num_nodes", 1))


def settings_of(config: Mapping[str, Any], gpus: int, *, gpu: bool = True) -> Run:
    """What of a config decides its memory.

    Args:
        config: A whole config of `fit`.
        gpus: Ranks that share the batch.
        gpu: Whether they are GPUs.
    """
    model, data, trainer = config["model"], config["data"], config["trainer"]
    stage, settings = model["class_path"].rpartition(".")[2], model["init_args"]
    if "micro_batch_tokens" not in settings:
        raise UserError(f"{stage} trains nothing: give `reft-pl memory` the config of a stage that `fit` runs")
    policy = dict(settings["policy"])
    if gpu and policy["dtype"] == "auto":
        policy["dtype"] = "bfloat16"  # as on the GPUs that are asked about, whatever this machine is fast in
    lora = LoRASettings(**policy.pop("lora")) if policy.get("lora") else policy.pop("lora", None)
    zero, replicated = _strategy(trainer.get("strategy"), gpus)
    optimizer = (settings.get("optimizer") or {}).get("class_path", "MasterAdamW").rpartition(".")[2]
    on_policy = stage == "PPOModule"
    sampled = data["batch_size"] * (settings.get("samples_per_problem") or 1)
    step = min(sampled, settings.get("minibatch_size") or sampled)
    if step < gpus:
        raise UserError(f"an optimizer step of {step} sequences cannot be shared by {gpus} GPUs: raise data.batch_size")
    sampler = settings.get("sampler") or {"class_path": "InProcessSampler"}
    rows = drafts = 0
    if sampler["class_path"].endswith("InProcessSampler"):
        # Validation samples too, and SFT in it alone.
        at_once = max(data["eval_batch_size"], 0 if stage == "SFTModule" else sampled)
        arguments = sampler.get("init_args") or {}
        rows = min(arguments.get("max_rows", 64), ceil(at_once / gpus))
        drafts = arguments.get("draft_tokens", 8)
    estimator = (settings.get("advantages") or {"class_path": "GAE"})["class_path"].rpartition(".")[2]
    return Run(
        PolicySettings(**policy, lora=lora),
        max_tokens=data["max_tokens"],
        micro_batch_tokens=settings["micro_batch_tokens"],
        sequences=ceil(step / gpus),
        cache_rows=rows if stage != "RerankerModule" else 0,
        draft_tokens=drafts,
        reference=on_policy and lora is None,
        reference_offloaded=bool(settings.get("offload_reference")),
        value_trunk=bool(on_policy and settings.get("separate_value_model") and estimator == "GAE"),
        rollouts=on_policy,
        optimizer={"MasterAdamW": "master", "SGD": "none"}.get(optimizer, "master" if zero else "plain"),
        optimizer_offloaded=bool(((settings.get("optimizer") or {}).get("init_args") or {}).get("offload")),
        gpus=gpus,
        zero=zero,
        replicated=replicated,
        gpu=gpu,
    )


def _strategy(strategy: Any, gpus: int) -> tuple[int, bool]:
    """ZeRO's stage (0 for none), and whether gradients are averaged in buckets."""
    name = strategy["class_path"] if isinstance(strategy, Mapping) else str(strategy)
    arguments = strategy.get("init_args") or {} if isinstance(strategy, Mapping) else {}
    return (arguments.get("stage", 2), False) if name.endswith("ZeRO") else (0, gpus > 1)


def shape_of(init_from: str, given: str | None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration of the model, from a file, a folder, what is shipped of the paper's models, or the hub.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        path = Path(find(given))
        if path.is_file() and path.name != "config.json":
            raise UserError(f"--model_config is {given}: give a config.json, or the folder that it lies in")
        return load_config(str(path.parent if path.is_file() else path), {"local_files_only": True})
    if not (Path(find(init_from)) / "config.json").is_file():
        for name, folder in SHAPES.items():
            if name in init_from.lower():
                return load_config(find(folder), {"local_files_only": True})
    source, hub_options, _ = locate_weights(init_from, trust_remote_code)
    return load_config(source, hub_options)

"""Read the state of a run folder: whether to resume, which weights to test, where results go."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reft_pl.errors import UserError
from reft_pl.models.folders import bring_back

BINDING = ("model", "data", "seed_everything")
"""Parts of a config that must not change when a run resumes."""

FREE = (
    "model.init_args.micro_batch_tokens",
    "model.init_args.policy.gradient_checkpointing",
    "model.init_args.policy.attention",
    "model.init_args.policy.compile",
    "model.init_args.policy.lora.export",
    "model.init_args.optimizer.init_args.offload",
    "model.init_args.offload_reference",
    "model.init_args.sampler",
    "model.init_args.sandbox.init_args.workers",
    "model.init_args.sandbox.init_args.allow_unsafe",
    "data.eval_batch_size",
    "data.cache_dir",
)
"""Settings that may change on resume: memory, speed, and the sampler, but not what is optimised."""

NAMED_BY_USERS = ("data.test", "data.samples", ".dict_kwargs")
"""Suffixes of keys with user-chosen names below them: test sets, sample files, and arguments of a user's class."""


def require_paths(run_dir: str, ckpt_path: str | None) -> None:
    """Reject a run folder named null and empty paths, such as unset shell variables, which would mean the working folder.

    Raises:
        UserError: A path is empty.
    """
    for name, path, advice in (
        ("run_dir", run_dir, "name the folder of this run"),
        ("ckpt_path", ckpt_path, "leave it out, or name a checkpoint, model folder or hub id"),
    ):
        if path is not None and not path.strip():
            raise UserError(f"--{name} is empty, perhaps from an unset shell variable: {advice}")
    if run_dir.strip().lower() in ("null", "none"):
        raise UserError(f"run_dir is {run_dir}: name the folder of this run, or leave run_dir out")


def require_folder(run_dir: Path) -> None:
    """Check that the run folder exists or can be created.

    Raises:
        UserError: The folder or a parent is a file, or is not writable.
    """
    there = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file: name a folder with --run_dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} may not be written to: name another folder with --run_dir")


def dtype_of(run_dir: Path) -> str | None:
    """Return ``policy.dtype`` from a run folder's config, possibly written on another machine; None if there is none."""
    saved = run_dir / "config.yaml"
    found: Any = yaml.safe_load(saved.read_text(encoding="utf-8")) if saved.exists() else None
    for key in ("model", "init_args", "policy", "dtype"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if found in ("bfloat16", "float32") else None


def checkpoint_to_resume(run_dir: Path, config: Mapping[str, Any], ckpt_path: str | None) -> Path | None:
    """Return the checkpoint that a fit resumes from, or None for a new run.

    Args:
        run_dir: The run folder.
        config: The full config of this fit.
        ckpt_path: None or ``last`` for the run's own checkpoint, else a file.

    Raises:
        UserError: The checkpoint does not exist, or the folder holds a run with other settings; their weights must not be
            mixed.
    """
    last, saved = run_dir / "checkpoints" / "last.ckpt", run_dir / "config.yaml"
    bring_back(last)
    if last.exists() and saved.exists():
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        for key, old, new in differences(binding(before), binding(config)):
            if not key.startswith(FREE):
                raise UserError(
                    f"{run_dir} holds a run with other settings ({key}: {old!r} there, {new!r} here): "
                    f"choose another --run_dir, or delete that folder to start again"
                )
    if ckpt_path is None:
        return last if last.exists() else None
    path = last if ckpt_path == "last" else Path(ckpt_path)
    if not path.exists() or path.suffix != ".ckpt":
        raise UserError(f"there is no checkpoint at {path} to resume: to start from its weights, set --model.policy.init_from")
    if path.name == "best.ckpt":
        raise UserError(f"{path} holds weights alone: resume from last.ckpt, or start from that run's hf/ folder")
    return path


def binding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that determine the course of training.

    The length of training is one of them if the learning-rate schedule depends on it.
    """
    parts = {key: config.get(key) for key in BINDING}
    init_args = (parts["model"] or {}).get("init_args") or {}
    schedule = init_args.get("schedule") or {}
    if schedule.get("epochs") is None and (schedule.get("kind") == "linear" or schedule.get("warmup")):
        trainer = config.get("trainer") or {}
        parts["trainer"] = {key: trainer.get(key) for key in ("max_epochs", "max_steps", "limit_train_batches")}
    return parts


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the leaves at which two nested configs differ, as (key, old, new).

    A setting found only in the new config was added by a newer version; treating it as a difference would reject every older
    run. Where users choose the names, an added entry is a difference.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        further = [name for name in new if name not in old] if key.endswith(NAMED_BY_USERS) else []
        for name in (*old, *further):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield key, old, new


def checkpoint_to_test(run_dir: Path, ckpt_path: str | None) -> Path | None:
    """Return the checkpoint that ``--ckpt_path`` names, or None if it names a model folder or hub id.

    Args:
        run_dir: The run folder.
        ckpt_path: None or ``best`` or ``last`` for the run's own checkpoint, else a path.

    Raises:
        UserError: The checkpoint does not exist.
    """
    if ckpt_path in (None, "best", "last"):
        path = run_dir / "checkpoints" / f"{ckpt_path or 'best'}.ckpt"
        bring_back(path)
        if not path.exists():
            raise UserError(
                f"there is no checkpoint at {path}: run `reft-pl fit` with this config first, or name a model folder or "
                f"hub id with --ckpt_path"
            )
        return path
    path = Path(str(ckpt_path))
    if path.suffix != ".ckpt":
        return None
    if not path.exists():
        raise UserError(f"there is no checkpoint at {path}: check --ckpt_path")
    return path


def export_to_sample_from(run_dir: Path, ckpt_path: str | None) -> None:
    """Check that there is a model to sample from: the run's export, or what ``--ckpt_path`` names.

    Raises:
        UserError: There is none, or it is a checkpoint, which does not name its model.
    """
    if ckpt_path is None and not (run_dir / "hf").is_dir():
        raise UserError(
            f"there is no model in {run_dir / 'hf'}: run `reft-pl fit` there first, or name a model "
            f"folder or hub id with --ckpt_path"
        )
    if ckpt_path is not None and Path(ckpt_path).suffix == ".ckpt":
        raise UserError(f"{ckpt_path} is a checkpoint: sample from the hf/ folder beside it")


def results_folder(run_dir: Path, ckpt_path: str | None) -> Path:
    """Return where to write results of ``ckpt_path``: the run folder for its best checkpoint, else a subfolder of ``tests``."""
    if ckpt_path in (None, "best"):
        return run_dir
    name = str(ckpt_path).strip("/.").removesuffix(".ckpt").replace("/", "--")
    return run_dir / "tests" / name

"""Resolve the config keys that depend on the verb and on the checkpoint that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from reft_pl.cli.run_folder import results_folder

POLICY = "model.init_args.policy"


def evaluated_folder(settings: Namespace, checkpoint: Path | None) -> str:
    """Return the model folder or hub id that describes the evaluated model: that of ``ckpt_path``, or the run's own export."""
    own = checkpoint is not None or settings.ckpt_path is None
    return str(Path(settings.run_dir) / "hf") if own else str(settings.ckpt_path)


def resolved_keys(verb: str, settings: Namespace, checkpoint: Path | None, exported: bool) -> dict[str, Any]:
    """Return the keys to replace before classes are instantiated, with their values. A pure function.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        settings: Parsed settings of the verb.
        checkpoint: Checkpoint to resume or evaluate; None for a new run, or if weights come from a model folder or hub id.
        exported: Whether the run folder holds an export, ``hf/``.

    Returns:
        Values by dotted key. ``fit`` writes the result to ``config.yaml``.
    """
    keys: dict[str, Any] = {"ckpt_path": str(checkpoint) if checkpoint else None}
    if verb == "fit":
        return keys
    keys["trainer.default_root_dir"] = str(results_folder(Path(settings.run_dir), settings.ckpt_path))
    if checkpoint is None:
        keys[f"{POLICY}.lora"] = None  # the folder already contains any adapters
    # The run's export matches its checkpoints even if init_from has changed since. A checkpoint of adapters needs its
    # original base; a merged export is not that base.
    if checkpoint is None or (settings[f"{POLICY}.lora"] is None and exported):
        keys[f"{POLICY}.init_from"] = keys["data.tokenizer"] = evaluated_folder(settings, checkpoint)
        keys[f"{POLICY}.from_scratch"] = False
    return keys

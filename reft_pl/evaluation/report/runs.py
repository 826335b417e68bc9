"""Run folders as a report sees them: what each is called, what it measured, what it logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reft_pl.errors import UserError
from reft_pl.evaluation.files import read_results
from reft_pl.evaluation.report.scalars import Curve, event_files, read_curves


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder; whatever it does not hold is empty.

    ``name`` is as much of the end of its path as tells it from the other runs; ``stage`` is its module's class without
    "Module" (``SFT``, ``PPO``), None where there is no config; ``curves`` are by TensorBoard tag.
    """

    name: str
    folder: Path
    stage: str | None
    results: dict[str, Any]
    curves: dict[str, Curve]

    @property
    def prediction_files(self) -> list[Path]:
        """Greedy answers, one file a test set."""
        return sorted((self.folder / "predictions").glob("*.jsonl"))

    @property
    def sample_files(self) -> list[Path]:
        """Sampled solutions, one file a set."""
        return sorted((self.folder / "samples").glob("*.jsonl"))

    @property
    def rollout_file(self) -> Path | None:
        """What training sampled, where that was kept."""
        path = self.folder / "rollouts.jsonl"
        return path if path.exists() else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in the order given, each once.

    Raises:
        UserError: a folder does not exist, or holds nothing that a run leaves.
    """
    distinct = list({folder.resolve(): folder for folder in folders}.values())
    return [_read(folder, name) for folder, name in zip(distinct, _names(distinct), strict=True)]


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}: check the path")
    run = Run(name, folder, _stage(folder), read_results(folder), read_curves(folder))
    if not (run.results or run.prediction_files or run.sample_files or run.rollout_file or event_files(folder)):
        raise UserError(
            f"{folder} holds nothing to report: name run folders, as `reft-pl fit`, `test` and `predict` leave them"
        )
    return run


def _names(folders: Sequence[Path]) -> list[str]:
    paths = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _stage(folder: Path) -> str | None:
    config = folder / "config.yaml"
    if not config.exists():
        return None
    model = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("model") or {}
    return str(model["class_path"]).rsplit(".", 1)[-1].removesuffix("Module") if "class_path" in model else None

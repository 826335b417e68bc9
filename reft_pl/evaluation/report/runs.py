"""Run folders as a report sees them: names, results and logged curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reft_pl.errors import UserError
from reft_pl.evaluation.files import read_results
from reft_pl.evaluation.report.scalars import Curve, event_files, read_curves
from reft_pl.evaluation.run_record import is_former, of_weights
from reft_pl.models.export import read_description

VERBS = {"test": "test", "samples": "predict", "rerank": "test"}
"""Sections of ``results.json`` that a report shows and that record weights, with the verb that rewrites each."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder; missing parts are empty.

    ``name`` is the shortest end of its path that distinguishes it from the other runs. ``stage`` is its module's class without
    "Module" (``SFT``, ``PPO``), None without a config. ``curves`` are by TensorBoard tag. ``prediction_files`` are greedy
    answers, one file per test set; ``sample_files`` are sampled solutions, one file per set.

    If the run has an ``hf/``, figures, answers and samples are of its weights. Results of other weights, such as from before
    further training, are left out except for the paths in ``former_samples``; ``notes`` explains each omission in a sentence.
    """

    name: str
    folder: Path
    stage: str | None
    results: dict[str, Any]
    curves: dict[str, Curve]
    prediction_files: list[Path]
    sample_files: list[Path]
    former_samples: list[Path]
    notes: list[str]

    @property
    def rollout_file(self) -> Path | None:
        """The samples of training, if they were kept."""
        path = self.folder / "rollouts.jsonl"
        return path if path.exists() else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in the order given, each once.

    Raises:
        UserError: A folder does not exist, or is not a run folder.
    """
    distinct = list({folder.resolve(): folder for folder in folders}.values())
    return [_read(folder, name) for folder, name in zip(distinct, _names(distinct), strict=True)]


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}: check the path")
    everything, weights = read_results(folder), read_description(folder / "hf").get("weights")
    results = everything if weights is None else {**everything, **_measured_on(weights, everything)}
    answers, samples = (sorted((folder / kind).glob("*.jsonl")) for kind in ("predictions", "samples"))
    sampled, tested = everything.get("samples", {}), everything.get("test", {})
    former = [path for path in samples if weights is not None and is_former(path, sampled.get(path.stem, {}), weights)]
    run = Run(
        name,
        folder,
        _stage(folder),
        results,
        read_curves(folder),
        [path for path in answers if path.stem in results.get("test", {}) or path.stem not in tested],
        [path for path in samples if path not in former],
        former,
        list(_notes(name, everything, results, former)),
    )
    if not (everything or answers or samples or run.rollout_file or event_files(folder)):
        raise UserError(
            f"{folder} holds nothing to report: name run folders, as `reft-pl fit`, `test` and `predict` leave them"
        )
    return run


def _measured_on(weights: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections that record weights, without entries of other weights."""
    return {section: of_weights(results[section], weights) for section in VERBS if section in results}


def _notes(name: str, everything: Mapping[str, Any], kept: Mapping[str, Any], former: Sequence[Path]) -> Iterator[str]:
    """Yield a sentence for each section with omitted entries, and for each omitted sample file."""
    for section, verb in VERBS.items():
        if gone := sorted(everything.get(section, {}).keys() - kept.get(section, {}).keys() - {"weights"}):
            yield (
                f"{name}: the figures of {', '.join(gone)} in section {section!r} of its results.json are of other weights "
                f"than those in its hf/ and are left out: run `reft-pl {verb}` on it again."
            )
    for path in former:
        yield (
            f"{name}: other weights than those in its hf/ wrote samples/{path.name}, which is left out: to have new ones, "
            f"move it and its settings file away and run `reft-pl predict`."
        )


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

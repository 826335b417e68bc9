"""Read from a run's files what applies to the weights in its ``hf/``, and nothing measured on other weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reft_pl.evaluation.files import read_predictions, read_results

MAX_EXAMPLE_CHARACTERS = 2000
_AT_K = re.compile(r"(voting|rerank|weighted|tie_break|pass)@(\d+)")
_ORDER = ("Top-1", "Voting", "Rerank", "Weighted", "Tie-break", "Pass")
_NOT_TESTS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of questions in [0, 1] with its 95% interval. ``questions`` is None if the count was not recorded."""

    value: float
    low: float
    high: float
    questions: int | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The record of a run for one set of weights.

    ``description`` is the content of ``hf/reft.json``; ``config`` the run's config, empty if there is none; ``results`` the
    sections of ``results.json``; ``example`` a correct prediction, with the name of its ``set``; ``sampling`` the sampling
    settings.
    """

    name: str
    description: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] | None = None

    @property
    def tests(self) -> dict[str, dict[str, Figure]]:
        """The figures of each test set by name: ``Top-1``, ``Voting@k``, ..., each at the largest k measured."""
        sets: dict[str, dict[str, Figure]] = {}
        for name, entry in self.results.get("test", {}).items():
            sets.setdefault(name, {})["Top-1"] = _figure((entry["top1"], *entry["interval95"]), entry.get("n"))
        for section in ("samples", "rerank", "reranked"):
            for name, entry in self.results.get(section, {}).items():
                if name not in _NOT_TESTS:
                    sets.setdefault(name, {}).update(_at_largest_k(entry, self._sampled_questions(name)))
        order = {kind: place for place, kind in enumerate(_ORDER)}
        return {
            name: dict(sorted(figures.items(), key=lambda item: order[item[0].partition("@")[0]]))
            for name, figures in sets.items()
            if figures
        }

    def _sampled_questions(self, name: str) -> int | None:
        """Return how many questions of a set were sampled; reranker results do not always record it."""
        count = self.results.get("samples", {}).get(name, {}).get("questions")
        return None if count is None else int(count)


def read_run(run_dir: Path, description: Mapping[str, Any]) -> RunRecord:
    """Read a run's files and leave out every figure measured on weights other than the description's.

    The key ``weights`` of a figure names the weights it was measured on; without it, the run's own are assumed.

    Raises:
        UserError: ``results.json`` is broken.
    """
    weights = description.get("weights")
    results = {name: of_weights(section, weights) for name, section in read_results(run_dir).items()}
    config = run_dir / "config.yaml"
    return RunRecord(
        run_dir.resolve().name,
        description,
        (yaml.safe_load(config.read_text(encoding="utf-8")) or {}) if config.is_file() else {},
        results,
        _right_prediction(run_dir, results.get("test", {})),
        _sampling(run_dir, results.get("samples", {})),
    )


def _at_largest_k(entry: Mapping[str, Any], sampled: int | None) -> dict[str, Figure]:
    largest: dict[str, int] = {}
    for match in filter(None, map(_AT_K.fullmatch, entry)):
        largest[match[1]] = max(int(match[2]), largest.get(match[1], 0))
    questions = entry.get("questions", sampled)
    return {
        f"{kind.replace('_', '-').capitalize()}@{k}": _figure(entry[f"{kind}@{k}"], questions) for kind, k in largest.items()
    }


def _figure(interval: Sequence[float], questions: int | None) -> Figure:
    value, low, high = interval
    return Figure(value, low, high, questions)


def _right_prediction(run_dir: Path, tests: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the first correct prediction that is short enough to show."""
    for name in tests:
        path = run_dir / "predictions" / f"{name}.jsonl"
        for row in read_predictions(path) if path.is_file() else ():
            if row["correct"] and len(row["question"]) + len(row["response"]) <= MAX_EXAMPLE_CHARACTERS:
                return {**row, "set": name}
    return None


def _sampling(run_dir: Path, samples: Mapping[str, Any]) -> dict[str, Any] | None:
    for name in samples:
        path = run_dir / "samples" / f"{name}.settings.json"
        if name not in _NOT_TESTS and path.is_file():
            settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return settings
    return None


def of_weights(section: Mapping[str, Any], weights: str | None) -> dict[str, Any]:
    """Return the entries of a section of ``results.json`` that were measured on these weights.

    The key ``weights`` of a section or entry names them; without it, the run's own weights are assumed.
    """
    if section.get("weights", weights) != weights:
        return {}
    return {
        key: entry for key, entry in section.items() if not isinstance(entry, dict) or entry.get("weights", weights) == weights
    }


def is_former(samples: Path, entry: Mapping[str, Any], weights: str) -> bool:
    """Return whether a sample file was written by other weights, as far as this is recorded.

    A file written by another program has no record and counts as current. For a file of an earlier reft-pl without weights in
    its settings, its entry in ``results.json`` decides; a finished file loses that entry only when the run is trained further.

    Args:
        samples: The sample file.
        entry: Its figures in ``results.json``, empty if there are none.
        weights: The run's current weights.
    """
    path = samples.with_name(f"{samples.stem}.settings.json")
    settings: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    wrote = (settings or {}).get("weights") or entry.get("weights")
    if wrote is not None:
        return bool(wrote != weights)
    unfinished = samples.with_name(f".{samples.stem}.parts").exists()
    return settings is not None and not entry and not unfinished

"""Tables of groups of runs, such as one recipe under several seeds: each row is the mean of its runs, with paired gains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reft_pl.data.sample_file import read_samples
from reft_pl.evaluation.at_k import reranking_figures, sampling_figures
from reft_pl.evaluation.files import read_predictions
from reft_pl.evaluation.intervals import mean_interval, paired_difference
from reft_pl.evaluation.report.rankings import Ranking
from reft_pl.evaluation.report.runs import Run
from reft_pl.evaluation.report.table import COLUMN_OF_FIGURE, TRAINING_SETS, Figure, Gain, Row, Table, headings

PerQuestion = Mapping[str, float]
"""Figures in [0, 1] by question id."""


@dataclass(frozen=True, slots=True)
class RunGroup:
    """The runs of one row; ``name`` is the pattern that matched their folders."""

    name: str
    runs: Sequence[Run]


def group_tables(groups: Sequence[RunGroup], rankings: Sequence[Ranking], k: int | None = None) -> list[Table]:
    """Return a table for every test set, with a row for every group that was measured on it.

    A figure is the mean over questions of the mean over runs, so its interval covers the choice of questions, not that of
    seeds. ``gain`` is that of Top-1 over the first row, ``weighted - vote`` that of the weighted vote over the plain vote; both
    are paired by question.

    Args:
        groups: In the order of their rows. Groups of rerankers have no row.
        rankings: Rankings of the groups' samples.
        k: Number of samples per question to choose from; None uses all.
    """
    runs = [run for group in groups for run in group.runs]
    names = dict.fromkeys(path.stem for run in runs for path in (*run.prediction_files, *run.sample_files))
    found = ((name, list(_rows(name, groups, rankings, k))) for name in names if name not in TRAINING_SETS)
    return [Table(name, headings(rows), rows) for name, rows in found if rows]


def _rows(name: str, groups: Sequence[RunGroup], rankings: Sequence[Ranking], k: int | None) -> Iterator[Row]:
    first: PerQuestion | None = None
    for group in groups:
        solved = mean_of_runs([_top1(run, name) for run in group.runs])
        chosen = [_choices(run, name, rankings, k) for run in group.runs]
        sizes = {n for n, _ in chosen}
        n = sizes.pop() if len(sizes) == 1 else 0
        ways = {way: mean_of_runs([of_run.get(way, {}) for _, of_run in chosen]) for way in COLUMN_OF_FIGURE} if n else {}
        figures = {"Top-1": _figure(solved)} if solved else {}
        if first is None:
            first = solved or None
        elif solved and solved.keys() == first.keys():
            figures["gain"] = _gain(first, solved)
        figures |= {COLUMN_OF_FIGURE[way]: _figure(of_way, n) for way, of_way in ways.items() if of_way}
        if ways.get("weighted"):
            figures["weighted - vote"] = _gain(ways["voting"], ways["weighted"])
        if figures:
            yield Row(group.name, f"mean of {len(group.runs)} runs" if len(group.runs) > 1 else "", figures)


def mean_of_runs(runs: Sequence[PerQuestion]) -> dict[str, float]:
    """Return each question's mean figure; empty if a run lacks figures or has other questions than the first."""
    if any(run.keys() != runs[0].keys() for run in runs):
        return {}
    return {question: sum(run[question] for run in runs) / len(runs) for question in runs[0]}


def _top1(run: Run, name: str) -> PerQuestion:
    files = [path for path in run.prediction_files if path.stem == name]
    return {row["item_id"]: float(row["correct"]) for path in files for row in read_predictions(path)}


def _choices(run: Run, name: str, rankings: Sequence[Ranking], k: int | None) -> tuple[int, dict[str, PerQuestion]]:
    """Return the number of samples to choose from, and the figures of each way to choose; (0, {}) without samples."""
    files = [path for path in run.sample_files if path.stem == name]
    if not files:
        return 0, {}
    items = read_samples(files[0])
    scores = next((_scores(r.scores) for r in rankings if r.policy is run and r.set_name == name), {})
    figures = {
        item.id: sampling_figures(item) | (reranking_figures(item, scores[item.id]) if item.id in scores else {})
        for item in items
    }
    n = k or len(items[0].predictions)
    present = [way for way in COLUMN_OF_FIGURE if all(f"{way}@{n}" in of_item for of_item in figures.values())]
    return n, {way: {item: of_item[f"{way}@{n}"] for item, of_item in figures.items()} for way in present}


def _scores(path: Path) -> dict[str, list[float]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="\n") as file:
        return {row["item_id"]: row["scores"] for row in map(json.loads, file)}


def _figure(values: PerQuestion, k: int | None = None) -> Figure:
    return Figure(*mean_interval(list(values.values())), len(values), k)


def _gain(before: PerQuestion, after: PerQuestion) -> Gain:
    return Gain(*paired_difference(list(before.values()), [after[question] for question in before]), len(before))

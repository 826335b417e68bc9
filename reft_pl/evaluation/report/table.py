"""The table `run | Top-1 | Voting@n | Rerank@n | weighted@n | tie-break@n | upper bound`, one per test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reft_pl.errors import UserError
from reft_pl.escapes import markdown_text
from reft_pl.evaluation.report.rankings import Ranking
from reft_pl.evaluation.report.runs import Run

TRAINING_SETS = ("train", "validation")
"""Sets that ``reft-pl predict`` may sample but that are not test sets."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of questions with its 95% interval. ``k`` is the number of samples chosen from, None for greedy Top-1."""

    mean: float
    low: float
    high: float
    questions: int
    k: int | None = None

    def __str__(self) -> str:
        return f"{self.mean:.1%} ({100 * self.low:.1f} to {100 * self.high:.1f})"


class Gain(Figure):
    """A paired difference of two figures, in [-1, 1]; shown in points."""

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


@dataclass(frozen=True, slots=True)
class Row:
    """A run, a remark on it, and its figures by column."""

    run: str
    remark: str
    figures: dict[str, Figure]


@dataclass(frozen=True, slots=True)
class Table:
    """All results on one test set. ``columns`` maps each column that has a figure to its heading."""

    name: str
    columns: dict[str, str]
    rows: list[Row]

    @property
    def questions(self) -> int | None:
        """Number of questions of every figure; None if they differ."""
        counts = {figure.questions for row in self.rows for figure in row.figures.values()}
        return counts.pop() if len(counts) == 1 else None

    @property
    def title(self) -> str:
        """Name of the set, with its number of questions."""
        return self.name if self.questions is None else f"{self.name} ({self.questions:,} questions)"

    def cell(self, row: Row, column: str) -> str:
        """Format a figure with what its heading does not show; a dash if it was not measured."""
        if column not in row.figures:
            return "-"
        figure = row.figures[column]
        n = f", n = {figure.k}" if figure.k is not None and self.columns[column].endswith("@n") else ""
        return f"{figure}{n}" + ("" if self.questions is not None else f", {figure.questions:,} questions")


COLUMN_OF_FIGURE = {
    "voting": "Voting", "rerank": "Rerank", "weighted": "weighted", "tie_break": "tie-break", "pass": "upper bound",
}  # fmt: skip
"""Columns of the figures that depend on k."""

COLUMNS = ("Top-1", "gain", "Voting", "Rerank", "weighted", "weighted - vote", "tie-break", "upper bound")

RANKED = ("rerank", "weighted", "tie_break")
"""Figures that need a reranker's scores."""


def tables(runs: Sequence[Run], rankings: Sequence[Ranking], k: int | None = None) -> list[Table]:
    """Return a table for every test set with a figure, in the order in which runs name them.

    Args:
        runs: In the order of their rows.
        rankings: Rankings of their samples.
        k: Number of samples per question to choose from; None uses all.

    Raises:
        UserError: Runs were sampled, but none has figures for k.
    """
    names = dict.fromkeys(name for run in runs for section in ("test", "samples") for name in run.results.get(section, {}))
    names |= dict.fromkeys(ranking.set_name for ranking in rankings)
    if k is not None:
        _check_k(k, [section for run in runs for section in run.results.get("samples", {}).values()])
    found = ((name, list(_rows(name, runs, rankings, k))) for name in names if name not in TRAINING_SETS)
    return [Table(name, headings(rows), rows) for name, rows in found if rows]


def without_weighted(rankings: Sequence[Ranking], k: int | None) -> list[str]:
    """Return a note if there are no votes with scores for ``k``: they are measured only over all n samples of a question."""
    sizes = sorted({ranking.figures["n"] for ranking in rankings} - {k})
    if k is None or not sizes:
        return []
    known = " or ".join(map(str, sizes))
    return [f"The votes with scores are measured only for all samples of a question ({known}): leave out --k {k} to see them."]


def _check_k(k: int, sections: Sequence[Mapping[str, Any]]) -> None:
    known = {int(key.removeprefix("voting@")) for section in sections for key in section if key.startswith("voting@")}
    if known and k not in known:
        there = ", ".join(map(str, sorted(known)))
        raise UserError(f"--k {k}: there are figures for {there} samples a question; choose one of these")


def _rows(name: str, runs: Sequence[Run], rankings: Sequence[Ranking], k: int | None) -> Iterator[Row]:
    here = [ranking for ranking in rankings if ranking.set_name == name]
    for run in runs:
        test, samples = run.results.get("test", {}).get(name), run.results.get("samples", {}).get(name)
        own = [ranking for ranking in here if ranking.policy is run]
        if not (test or samples or own):
            continue
        figures = _top1(test) if test else {}
        figures |= _at(k, samples or own[0].figures, ("voting", "pass")) if samples or own else {}
        for ranking in own:
            yield Row(run.name, f"ranked by {ranking.reranker.name}", figures | _at(k, ranking.figures, RANKED))
        if not own:
            yield Row(run.name, "", figures)
    for ranking in here:
        if ranking.policy is None:
            figures = _at(k, ranking.figures, ("voting", "pass", *RANKED))
            yield Row(ranking.reranker.name, f"ranks {ranking.figures['samples']}", figures)


def _top1(section: Mapping[str, Any]) -> dict[str, Figure]:
    low, high = section["interval95"]
    return {"Top-1": Figure(section["top1"], low, high, section["n"])}


def _at(k: int | None, section: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Figure]:
    """Return the figures for k samples (None: all), as far as the section has them."""
    size, figures = k or section["n"], {}
    for kind in kinds:
        if f"{kind}@{size}" in section:
            mean, low, high = section[f"{kind}@{size}"]
            figures[COLUMN_OF_FIGURE[kind]] = Figure(mean, low, high, section["questions"], size)
    return figures


def headings(rows: Sequence[Row]) -> dict[str, str]:
    """Return the heading of each column that has a figure; it names k if all rows choose from as many samples."""
    headings: dict[str, str] = {}
    for column in COLUMNS:
        ks = {row.figures[column].k for row in rows if column in row.figures}
        if column in ("Voting", "Rerank", "weighted", "tie-break"):
            headings |= {column: f"{column}@{ks.pop() if len(ks) == 1 else 'n'}"} if ks else {}
        elif ks:
            headings[column] = column
    return headings


def to_markdown(table: Table) -> str:
    """Format the table under its title."""
    head = ["run", *table.columns.values()]
    rows = [
        [f"{row.run} ({row.remark})" if row.remark else row.run, *(table.cell(row, c) for c in table.columns)]
        for row in table.rows
    ]
    lines = [f"| {' | '.join(map(markdown_text, cells))} |" for cells in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return f"### {markdown_text(table.title)}\n\n" + "\n".join(lines) + "\n"

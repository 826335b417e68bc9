"""Data of the page's solution browser, limited in size and stored as compact rows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any
from zlib import crc32

from reft_pl.evaluation.report.runs import Run
from reft_pl.evaluation.report.solutions import Solution, sources

MAX_SOLUTIONS = 2000
"""Limit per file; a page with about ten thousand loads in a second."""


def browser_data(runs: Sequence[Run], limit: int = MAX_SOLUTIONS) -> dict[str, Any]:
    """Return everything that the browser shows, as JSON.

    A row is ``[question, run, origin, status, text, correct, answer, batch, count]``. The first five are indices into lists
    (status -1: not recorded); ``count`` is the number of identical solutions. Rows are sorted by question, then run.
    ``left_out`` gives, for each file with more than ``limit`` solutions, how many are shown.
    """
    index = _Index()
    counts: dict[tuple[Any, ...], int] = {}
    left_out = []
    for place, run in enumerate(runs):
        for source in sources(run):
            ids, total = chosen(source.counts, limit), sum(source.counts.values())
            kept = sum(source.counts[item] for item in ids)
            if kept < total:
                left_out.append({"run": place, "origin": source.origin, "set": source.set_name, "kept": kept, "of": total})
            for solution in source.read(ids):
                row = index.row(solution, place, source.origin)
                counts[row] = counts.get(row, 0) + 1
    rows = [[*row, counts[row]] for row in sorted(counts, key=lambda row: row[:2])]
    return {**index.lists(), "rows": rows, "left_out": left_out}


def chosen(counts: Mapping[str, int], limit: int) -> set[str]:
    """Choose questions with at most ``limit`` solutions in total, but at least one question.

    A hash of the id decides the order: the choice is spread over the file and is the same for every run, so that answers to
    one question can be compared.
    """
    kept: set[str] = set()
    total = 0
    for item in sorted(counts, key=lambda item: (crc32(item.encode(errors="surrogatepass")), item)):
        total += counts[item]
        if total > limit and kept:
            break
        kept.add(item)
    return kept


class _Index:
    """Assign an index to each question, origin, status and text."""

    def __init__(self) -> None:
        self._places: dict[str, dict[Hashable, int]] = {name: {} for name in ("questions", "origins", "statuses", "texts")}

    def row(self, solution: Solution, run: int, origin: str) -> tuple[Any, ...]:
        q, status = solution.question, solution.status
        return (
            self._place("questions", (q.set_name, q.id, q.text, q.gold)),
            run,
            self._place("origins", origin),
            -1 if status is None else self._place("statuses", status),
            self._place("texts", solution.text),
            int(solution.correct),
            solution.answer,
            solution.batch,
        )

    def lists(self) -> dict[str, list[Hashable]]:
        return {name: list(places) for name, places in self._places.items()}

    def _place(self, name: str, value: Hashable) -> int:
        places = self._places[name]
        return places.setdefault(value, len(places))

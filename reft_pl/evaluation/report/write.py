"""Write a report of several runs: the tables in Markdown, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reft_pl.escapes import markdown_line
from reft_pl.evaluation.files import write_aside
from reft_pl.evaluation.report.accuracy_charts import accuracy_against_k
from reft_pl.evaluation.report.browser import browser_data
from reft_pl.evaluation.report.page import page
from reft_pl.evaluation.report.rankings import find_rankings
from reft_pl.evaluation.report.runs import read_runs
from reft_pl.evaluation.report.table import tables, to_markdown, without_weighted
from reft_pl.evaluation.report.training_charts import learning_curves, status_charts


def write_report(folders: Sequence[Path], output: Path, k: int | None = None) -> tuple[str, Path]:
    """Write ``report.md`` and ``report.html``; return the Markdown and the path of the page.

    The tables use ``k`` samples per question, or all if None.

    Raises:
        UserError: A folder is not a run folder or holds an unreadable file, or no run has figures for ``k``.
    """
    runs = read_runs(folders)
    rankings, left_out = find_rankings(runs)
    notes = [*(note for run in runs for note in run.notes), *left_out, *without_weighted(rankings, k)]
    found = tables(runs, rankings, k)
    charts = {
        "accuracy": accuracy_against_k(runs, rankings),
        "curves": learning_curves(runs),
        "statuses": status_charts(runs),
    }
    markdown = "\n".join([*map(to_markdown, found), *(f"{markdown_line(note)}\n" for note in notes)])
    html, path = page(runs, found, notes, charts, browser_data(runs)), output / "report.html"
    write_aside(output / "report.md", markdown)  # both are complete before either is written
    write_aside(path, html)
    return markdown, path

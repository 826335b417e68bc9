"""Write a report of several runs: the tables in Markdown, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reft_pl.escapes import markdown_line
from reft_pl.evaluation.files import write_aside
from reft_pl.evaluation.report.accuracy_charts import accuracy_against_k
from reft_pl.evaluation.report.browser import browser_data
from reft_pl.evaluation.report.groups import RunGroup, group_tables
from reft_pl.evaluation.report.page import page
from reft_pl.evaluation.report.rankings import find_rankings
from reft_pl.evaluation.report.runs import read_runs
from reft_pl.evaluation.report.table import tables, to_markdown, without_weighted
from reft_pl.evaluation.report.training_charts import learning_curves, status_charts


def write_report(groups: Mapping[str, Sequence[Path]], output: Path, k: int | None = None) -> tuple[str, Path]:
    """Write ``report.md`` and ``report.html``; return the Markdown and the path of the page.

    If a group has several runs, the tables show the means of groups, and the rest of the page shows the first run of each.

    Args:
        groups: The run folders that each argument of ``reft-pl report`` names, by argument.
        output: Folder for both files.
        k: Number of samples per question that the tables choose from; None uses all.

    Raises:
        UserError: A folder is not a run folder or holds an unreadable file, or no run has figures for ``k``.
    """
    everything = read_runs([folder for folders in groups.values() for folder in folders])
    by_folder = {run.folder.resolve(): run for run in everything}
    rows = [RunGroup(name, [by_folder[folder.resolve()] for folder in folders]) for name, folders in groups.items()]
    means = any(len(row.runs) > 1 for row in rows)
    runs = [row.runs[0] for row in rows] if means else everything
    rankings, left_out = find_rankings(everything)
    notes = [*(note for run in everything for note in run.notes), *left_out, *without_weighted(rankings, k)]
    found = group_tables(rows, rankings, k) if means else tables(runs, rankings, k)
    shown = [ranking for ranking in rankings if any(ranking.reranker is run for run in runs)]
    charts = {
        "accuracy": accuracy_against_k(runs, shown),
        "curves": learning_curves(runs),
        "statuses": status_charts(runs),
    }
    markdown = "\n".join([*map(to_markdown, found), *(f"{markdown_line(note)}\n" for note in notes)])
    html, path = page(runs, found, notes, charts, browser_data(runs)), output / "report.html"
    write_aside(output / "report.md", markdown)  # both are complete before either is written
    write_aside(path, html)
    return markdown, path

"""`reft-pl report`: the table of some runs in Markdown, and a page that shows their curves and what their models wrote."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Write both files, print the table and the page's path; returns the exit code."""
    parser = ArgumentParser("reft-pl report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, of policies and of rerankers")
    parser.add_argument("--output", type=Path, default=Path("report"), help="folder for report.md and report.html (report)")
    parser.add_argument("--k", type=int, help="the tables are of a choice of so many samples a question (all that there are)")
    options = parser.parse_args(args)

    from reft_pl.evaluation.report.write import write_report  # noqa: PLC0415 (--help must not wait for TensorBoard)

    markdown, path = write_report(options.runs, options.output, options.k)
    echo(f"{markdown}\n{path}", lines=True)
    return 0

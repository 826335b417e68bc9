"""`reft-pl report`: write the results table of several runs in Markdown, and a page with their curves and solutions."""

from __future__ import annotations

from pathlib import Path

from reft_pl.commands.command_parser import CommandParser
from reft_pl.commands.compare import matching_folders
from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Write both files, print the table and the page's path, and return the exit code."""
    parser = CommandParser("reft-pl report", description=__doc__)
    parser.add_argument(
        "runs", nargs="+",
        help="run folders, of policies and of rerankers; a quoted pattern such as 'runs/table/*/sft' is one row of the tables, "
        "the mean of its runs, and the page shows curves and solutions of the first",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("report"), help="folder for report.md and report.html (report)")
    parser.add_argument("--k", type=int, help="number of samples per question to choose from in the tables (default: all)")
    options = parser.parse_args(args)

    groups = {pattern: matching_folders(pattern) for pattern in options.runs}
    from reft_pl.evaluation.report.write import write_report  # noqa: PLC0415 (--help must not wait for TensorBoard)

    markdown, path = write_report(groups, options.output, options.k)
    echo(f"{markdown}\n{path}", lines=True)
    return 0

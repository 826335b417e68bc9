"""`reft-pl compare`: compare Top-1 of tested runs on the same questions."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError
from reft_pl.escapes import markdown_text, one_line
from reft_pl.evaluation.files import read_predictions
from reft_pl.evaluation.intervals import mean_interval, paired_difference
from reft_pl.terminal import echo

Verdicts = dict[str, float]
"""The share of a group's runs that solved each question, by question id."""


def main(args: list[str]) -> int:
    """Print the table and return the exit code."""
    parser = CommandParser("reft-pl compare", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", help="run folders; a quoted pattern such as 'runs/seeds/*/ppo' gives one row, the mean of its runs"
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--examples", type=int, default=0, help="print this many questions that only the last run solved")
    options = parser.parse_args(args)
    groups = {pattern: matching_folders(pattern) for pattern in options.runs}
    rows = [_row(pattern, folders, next(iter(groups.values()))) for pattern, folders in groups.items()]
    _print_table(rows, markdown=options.markdown)
    if options.examples and len(groups) > 1:
        first, *_, last = groups.values()
        _print_examples(first[0], last[0], options.examples)
    return 0


def matching_folders(pattern: str) -> list[Path]:
    """Return the folders that an argument names, sorted.

    Raises:
        UserError: There is none.
    """
    if Path(pattern).is_dir():  # its name may look like a pattern
        return [Path(pattern)]
    folders = sorted(Path(folder) for folder in glob(pattern) if Path(folder).is_dir())  # noqa: PTH207 (patterns may be absolute)
    if not folders:
        raise UserError(f"there is no run folder {pattern}: check the path")
    return folders


def _sets(folder: Path) -> list[str]:
    names = sorted(path.stem for path in (folder / "predictions").glob("*.jsonl"))
    if not names:
        raise UserError(f"{folder} has no predictions: run `reft-pl test` on this run first")
    return names


def _predictions(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    return {row["item_id"]: row for row in read_predictions(folder / "predictions" / f"{name}.jsonl")}


def verdicts(folders: list[Path], name: str) -> Verdicts:
    """Return the share of the runs in ``folders`` that solved each question of test set ``name``.

    Raises:
        UserError: A run was not tested on this set, or on different questions than the others.
    """
    per_run = [{item: row["correct"] for item, row in _predictions(folder, name).items()} for folder in folders]
    for folder, run in zip(folders, per_run, strict=True):
        if run.keys() != per_run[0].keys():
            raise UserError(
                f"{folder} and {folders[0]} were tested on different questions of {name}: test them with one config"
            )
    return {item: sum(run[item] for run in per_run) / len(per_run) for item in per_run[0]}


def _row(pattern: str, folders: list[Path], first: list[Path]) -> dict[str, str]:
    row = {"run": pattern if len(folders) == 1 else f"{pattern} (mean of {len(folders)})"}
    for name in _sets(folders[0]):
        solved = verdicts(folders, name)
        mean, low, high = mean_interval(list(solved.values()))
        row[name] = f"{mean:.1%} ({low:.1%} to {high:.1%})"
        comparable = folders != first and all(name in _sets(folder) for folder in first)
        row[f"{name}: gain over the first"] = _gain(verdicts(first, name), solved) if comparable else "-"
    return row


def _gain(before: Verdicts, after: Verdicts) -> str:
    if before.keys() != after.keys():
        return "other questions"
    mean, low, high = paired_difference(list(before.values()), [after[item] for item in before])
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _print_table(rows: list[dict[str, str]], *, markdown: bool) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if markdown:
        echo("| " + " | ".join(map(markdown_text, columns)) + " |")
        echo("|" + "---|" * len(columns))
        for row in rows:
            echo("| " + " | ".join(markdown_text(row.get(column, "-")) for column in columns) + " |")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title="Greedy Top-1 (95% interval); gains are paired, in points", title_justify="left")
    for column in columns:
        table.add_column(Text(one_line(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(row.get(column, "-"))) for column in columns))
    Console().print(table)


def _print_examples(before: Path, after: Path, count: int) -> None:
    name = _sets(after)[0]
    old, new = _predictions(before, name), _predictions(after, name)
    learned: list[dict[str, Any]] = [
        row for item, row in new.items() if row["correct"] and item in old and not old[item]["correct"]
    ]
    for row in learned[:count]:
        wrong = old[row["item_id"]]
        echo(f"\n{row['question']}\n", lines=True)
        echo(f"{before} ({wrong['status']}, answer {wrong['answer']}, right is {row['gold']}):")
        echo(f"{wrong['response'].strip()}\n", lines=True)
        echo(f"{after} (answer {row['answer']}):")
        echo(row["response"].strip(), lines=True)

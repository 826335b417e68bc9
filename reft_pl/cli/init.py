"""`reft-pl init`: look at a dataset and write a commented config that trains on it."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError
from reft_pl.terminal import echo

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from reft_pl.cli.dataset_survey import Survey
    from reft_pl.cli.init_config import Plan
    from reft_pl.data.tables import Table

DEFAULT_MODEL = "configs/models/tiny_llama"
_GUESSED_FROM = 1000  # rows
_FEWEST = 2  # one to train on, one to hold out
_SHOWN = 2  # rows
_WIDTH = 80  # characters of a field that are shown


def main(args: list[str]) -> int:
    """Survey the dataset, write the config, and return the exit code."""
    parser = CommandParser(
        "reft-pl init",
        description="Look at a dataset, guess its columns, check its answers, measure its lengths, and write a config for "
        "`reft-pl fit`. Reads data only, and never runs or imports anything that comes with it.",
    )
    parser.add_argument(
        "dataset", help="a .json, .jsonl, .csv or .parquet file, a folder of them or of save_to_disk, or a hub dataset"
    )
    parser.add_argument("--output", type=Path, default=Path("my_run.yaml"), help="file to write (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model folder or hub id to train (default: %(default)s)")
    parser.add_argument("--subset", help="configuration of a hub dataset, such as main of openai/gsm8k")
    parser.add_argument("--question", nargs="+", default=[], metavar="COLUMN", help="columns of the question (guessed)")
    parser.add_argument("--answer", metavar="COLUMN", help="column of the answer (guessed)")
    parser.add_argument("--solution", metavar="COLUMN", help="column of the solution (guessed)")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    options = parser.parse_args(args)
    if options.output.is_dir():
        raise UserError(f"{options.output} is a folder: give --output the name of a file in it")
    if options.output.exists() and not options.force:
        raise UserError(f"{options.output} exists: give --output another name, or --force to overwrite it")
    if options.output.suffix not in (".yaml", ".yml"):
        raise UserError(f"{options.output} is no name of a config: let it end in .yaml")
    _write(options)
    return 0


def _write(options: Namespace) -> None:
    from reft_pl.cli.init_config import config_text  # noqa: PLC0415 (--help must not wait for torch)
    from reft_pl.cli.memory_settings import shape_of  # noqa: PLC0415
    from reft_pl.cli.quiet import quieten  # noqa: PLC0415
    from reft_pl.evaluation.files import write_aside  # noqa: PLC0415

    quieten()
    shape = shape_of(options.model, None)
    plan = _plan(options, getattr(shape.get_text_config(), "max_position_embeddings", None))
    for line in plan.findings:
        echo(line)
    try:
        write_aside(options.output, config_text(plan))
    except OSError as error:
        raise UserError(f"cannot write {options.output} ({error.strerror}): give --output another name") from None
    _estimate_memory(plan.arguments, shape)
    echo()
    echo(f"{options.output} is written. Next:")
    echo(f"  reft-pl fit {' '.join(map(quote, plan.arguments))}")


def _plan(options: Namespace, positions: int | None) -> Plan:
    """Survey the dataset, and print what it holds.

    Args:
        options: The command's options.
        positions: Longest sequence that the model reads, in tokens.
    """
    from reft_pl.cli.dataset_survey import measure, source_settings, survey  # noqa: PLC0415
    from reft_pl.cli.init_config import Plan  # noqa: PLC0415
    from reft_pl.data.columns import guess_columns  # noqa: PLC0415
    from reft_pl.data.tables import find_tables  # noqa: PLC0415
    from reft_pl.data.tokenizer import load_tokenizer  # noqa: PLC0415

    tokenizer = load_tokenizer(options.model)
    tables = find_tables(options.dataset, options.subset)
    rows = _first_rows(tables["train"])
    names = list(dict.fromkeys(name for row in rows for name in row))
    _show(tables, names, rows[:_SHOWN])
    columns = guess_columns(rows, options.question, options.answer, options.solution)
    where = f" ({columns.answer_pattern})" if columns.answer_pattern else ""
    echo(f"question: {', '.join(columns.question)}; answer: {columns.answer}{where}; solution: {columns.solution or 'none'}")
    read = {
        name: survey(
            source_settings(table, columns, names, skip=True, solutions=name == "train"), bool(tokenizer.chat_template)
        )
        for name, table in tables.items()
    }
    for name, found in read.items():
        _report_answers(name, found)
    if read["train"].distinct < _FEWEST:
        raise UserError(
            f"{options.dataset} has {read['train'].distinct} question with a readable answer: give at least {_FEWEST}"
        )
    evaluated = [problem for name, found in read.items() if name != "train" for problem in found.problems]
    return Plan(
        dataset=options.dataset,
        output=options.output,
        model=options.model,
        from_scratch=options.model == DEFAULT_MODEL,
        sources={
            name: source_settings(table, columns, names, skip=bool(read[name].bad), solutions=name == "train")
            for name, table in tables.items()
        },
        survey=read["train"],
        lengths=measure(read["train"], evaluated, tokenizer, positions),
    )


def _show(tables: Mapping[str, Table], names: list[str], rows: list[Mapping[str, Any]]) -> None:
    """Print where the tables are, their columns, and a few rows."""
    parts = ([f"{name}:", table.path, table.subset, table.split] for name, table in tables.items())
    echo(f"{'; '.join(' '.join(filter(None, part)) for part in parts)}; columns: {', '.join(names)}")
    for row in rows:
        echo()
        for name, value in row.items():
            echo(f"  {name}: {_shown(value)}")
    echo()


def _report_answers(name: str, found: Survey) -> None:
    echo(f"{name}: {len(found.problems)} of {len(found.problems) + found.bad.total()} answers can be read")
    if found.example:
        echo(f"  {', '.join(f'{count} {reason}' for reason, count in found.bad.items())}, such as: {found.example}")


def _estimate_memory(arguments: list[str], shape: PreTrainedConfig) -> None:
    """Print the estimated memory of the run, and check by the way that ``fit`` takes the config."""
    import torch  # noqa: PLC0415

    from reft_pl.cli.memory import GIB, parsed  # noqa: PLC0415
    from reft_pl.cli.memory_settings import settings_of  # noqa: PLC0415
    from reft_pl.models.memory import estimate  # noqa: PLC0415

    log = logging.getLogger("reft_pl.cli.parser")
    log.disabled = True  # it names what the overlay replaces, which `fit` shows too
    try:
        config = parsed(arguments)
    finally:
        log.disabled = False
    if config is None:
        raise UserError("`fit` does not take the config that was written, for the reason above: correct it by hand")
    run = settings_of(config, 1, gpu=torch.cuda.is_available())
    made = estimate(shape, run)
    echo(f"memory: about {made.total(made.peak) / GIB:.1f} GiB ({made.parameters / 1e6:,.1f} million parameters)")


def _first_rows(table: Table) -> list[Mapping[str, Any]]:
    """Return the first rows that are objects.

    Raises:
        UserError: The table cannot be read, or has no rows.
    """
    from reft_pl.data.files import RowError  # noqa: PLC0415
    from reft_pl.data.hf_dataset import HFDatasetSource  # noqa: PLC0415

    source = HFDatasetSource(table.path, split=table.split or "train", subset=table.subset)
    rows = list(islice((row for _, row in source.table() if not isinstance(row, RowError)), _GUESSED_FROM))
    if not rows:
        raise UserError(f"{table.path} has no rows: check the file")
    return rows


def _shown(value: object) -> str:
    """Return a field for one line of the terminal."""
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."

"""`reft-pl prepare`: convert an official release to training data in the paper's format, with every program executed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError
from reft_pl.terminal import echo

if TYPE_CHECKING:
    from reft_pl.data.programs.draft import Draft
    from reft_pl.types import ExecutionResult


def main(args: list[str]) -> int:
    """Convert and execute solutions, write the correct ones, report the others by reason; return the exit code."""
    parser = CommandParser(
        "reft-pl prepare",
        description="Convert an official release to annotated problems in the format of the authors: programs, each run "
        "in the sandbox and kept only if its answer is correct, or solutions in natural language.",
    )
    parser.add_argument("dataset", choices=("gsm8k", "svamp", "mathqa", "mathqa-numeric"), help="dataset of the release")
    parser.add_argument("--source", type=Path, required=True, help="the release's file (JSON lines, or one JSON list)")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--cot", choices=("python", "nl"), default="python", help="format of the solutions (default: %(default)s)"
    )
    options = parser.parse_args(args)

    # imported late, so that --help is fast
    from reft_pl.data.programs.official import read_release  # noqa: PLC0415
    from reft_pl.data.programs.writing import Unconvertible  # noqa: PLC0415
    from reft_pl.evaluation.files import write_aside  # noqa: PLC0415

    if options.output.resolve() == options.source.resolve():
        raise UserError(f"{options.output} is the source itself: give --output another name")
    if options.output.is_dir():
        raise UserError(f"{options.output} is a folder: give --output the name of a file in it")
    left_out: Counter[str] = Counter()
    drafts = []
    for read in read_release(options.dataset, options.source, options.cot):
        if isinstance(read, Unconvertible):
            left_out[str(read)] += 1
        else:
            drafts.append(read)
    kept = _right(drafts, left_out)
    total = len(kept) + left_out.total()
    if not kept:
        raise UserError(
            f"{options.source} gives no {options.dataset} problem ({_in_words(left_out)}): is it the release's own file?"
        )
    text = json.dumps([_row(draft) for draft in kept], indent=1, ensure_ascii=False) + "\n"
    try:
        write_aside(options.output, text)
    except OSError as error:
        raise UserError(f"cannot write {options.output} ({error.strerror}): give --output another name") from None
    echo(f"kept {len(kept)} of {total} ({len(kept) / total:.2%}) in {options.output}")
    for reason, count in left_out.most_common():
        echo(f"left out {count}: {reason}")
    return 0


def _right(drafts: Sequence[Draft], left_out: Counter[str]) -> list[Draft]:
    """Return the drafts that pass all checks; count the others by reason."""
    from reft_pl.sandbox.cpython import CPythonSandbox  # noqa: PLC0415

    with closing(CPythonSandbox()) as sandbox:
        results = iter(sandbox.run([check.program for draft in drafts for check in draft.checks]))
    kept = []
    for draft in drafts:
        faults = [fault for check in draft.checks if (fault := _fault(next(results), check.answer, check.tolerance))]
        if faults:
            left_out[faults[-1]] += 1
        else:
            kept.append(draft)
    return kept


def _fault(result: ExecutionResult, answer: float | str, tolerance: float) -> str | None:
    from reft_pl.formats.answers import answers_equal  # noqa: PLC0415

    if result.value is None:
        return f"its program ends in {result.status.value}"
    return None if answers_equal(result.value, answer, tolerance) else "its program comes to another answer"


def _row(draft: Draft) -> dict[str, str]:
    from reft_pl.formats.parsing import answer_text  # noqa: PLC0415

    return {
        "item_id": draft.id,
        "question": draft.question,
        "answer_cot": draft.solution,
        "answer_value": answer_text(draft.answer),
    }


def _in_words(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or "it is empty"

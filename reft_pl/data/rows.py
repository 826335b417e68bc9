"""Validate the rows of a file and build problems from them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_only

from reft_pl.choices import CHOICES
from reft_pl.data.files import RowError
from reft_pl.data.text import is_ambiguous_number, stated_number
from reft_pl.errors import UserError
from reft_pl.types import Answer, Problem

logger = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]
AnswerKind = Literal["auto", "number", "choice"]


@dataclass(frozen=True, slots=True)
class Row:
    """The unvalidated fields of one row, and its location in the file (``place``, such as "line 3")."""

    place: str
    id: object
    question: object
    answer: object
    solution: object = None
    kind: AnswerKind = "auto"
    columns: Mapping[str, Any] = field(default_factory=dict)


def named_columns(columns: list[str] | dict[str, str] | None) -> dict[str, str]:
    """Return the columns of a table by the names under which ``Problem.columns`` holds them."""
    return dict(columns) if isinstance(columns, dict) else {name: name for name in columns or ()}


def to_problems(
    rows: Iterable[Row | RowError], *, source: str, on_bad_row: OnBadRow, solutions: bool, limit: int | None
) -> list[Problem]:
    """Validate rows and build problems from them, in order.

    Args:
        rows: The rows of the file.
        source: Name of the file, for messages.
        on_bad_row: Stop at the first bad row, or skip bad rows and log their number by reason.
        solutions: Keep the annotated solutions.
        limit: Maximum number of problems.

    Raises:
        UserError: a row is bad and ``on_bad_row`` is ``error``, or there are no problems.
    """
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for read in checked(rows, solutions=solutions):
        if isinstance(read, Problem):
            problems.append(read)
            if len(problems) == limit:
                break
        elif on_bad_row == "error":
            raise UserError(f"{source}: {read.detail}; correct it, or skip such rows with on_bad_row: skip")
        else:
            skipped[read.reason] += 1
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        rank_zero_only(logger.warning)(
            "%s: skipped %d rows (%s), kept %d", source, sum(skipped.values()), reasons, len(problems)
        )
    if not problems:
        raise UserError(f"{source} has no problems" + (": every row was skipped" if skipped else "; check the file"))
    return problems


def checked(rows: Iterable[Row | RowError], *, solutions: bool = True) -> Iterator[Problem | RowError]:
    """Yield the problem of each row, or what is wrong with it.

    Args:
        rows: The rows of the file.
        solutions: Keep the annotated solutions.
    """
    ids: set[str] = set()
    for row in rows:
        read = _read(row, solutions, ids)
        if isinstance(read, Problem):
            ids.add(read.id)
        yield read


def _read(row: Row | RowError, solutions: bool, earlier: Container[str]) -> Problem | RowError:
    try:
        return _problem(row, solutions, earlier)
    except RowError as bad:
        return bad


def _problem(row: Row | RowError, solutions: bool, earlier: Container[str]) -> Problem:
    if isinstance(row, RowError):
        raise row
    place = row.place if row.id is None else f"{row.place} ({row.id})"
    question = _text(row.question)
    if question is None:
        raise RowError("no question", f"{place} has no question")
    if row.id is None or not str(row.id).strip():
        raise RowError("no id", f"{row.place} has no id")
    if str(row.id) in earlier:
        raise RowError("duplicate id", f"{row.place} has the id {str(row.id)!r} of an earlier row")
    answer = reference_answer(row.answer, row.kind, place)
    solution = _text(row.solution) if solutions else None
    for text in (str(row.id), question, solution or ""):
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise RowError("not Unicode", f"{place} contains half of a surrogate pair, which is not Unicode text")
    return Problem(str(row.id), question, answer, solution, columns=row.columns)


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text or None


def reference_answer(value: object, kind: AnswerKind, place: str) -> Answer:
    """Read the answer field of a row.

    Args:
        value: The field.
        kind: The kind of answer that it holds.
        place: Location of the row, for the message.

    Raises:
        RowError: the field holds no answer of this kind.
    """
    if isinstance(value, bool) or value is None or (isinstance(value, str) and not value.strip()):
        raise RowError("no answer", f"{place} has no answer")
    letter = value.strip().lower() if isinstance(value, str) and kind != "number" else ""
    if len(letter) == 1 and letter in CHOICES:
        return letter
    if kind == "choice" or (len(letter) == 1 and letter.isalpha()):
        wanted = f"which is not a choice from {CHOICES[0]} to {CHOICES[-1]}"
        raise RowError("answer is not a choice", f"{place} has the answer {value!r}, {wanted}")
    number = stated_number(str(value))
    if number is None and is_ambiguous_number(str(value)):
        raise RowError(
            "ambiguous number",
            f"{place} has the ambiguous answer {value!r}: write decimals with a point (1.5) and thousands in groups of three "
            f"digits (1,500)",
        )
    if number is None:
        raise RowError("non-numeric answer", f"{place} has the answer {value!r}, which is not a finite number")
    return number

"""From the rows of a file to problems: one place that knows what is wrong with a row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

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
    """The fields of one row as they stand in the file. ``place`` says where that is ("line 3")."""

    place: str
    id: object
    question: object
    answer: object
    solution: object = None
    kind: AnswerKind = "auto"


def to_problems(
    rows: Iterable[Row | RowError], *, source: str, on_bad_row: OnBadRow, solutions: bool, limit: int | None
) -> list[Problem]:
    """Check rows and build problems of them, in order.

    Args:
        rows: what the file holds.
        source: its name, for messages.
        on_bad_row: stop at the first bad row, or leave bad rows out and log how many there were, by reason.
        solutions: whether to keep annotated solutions.
        limit: how many problems to take at most.

    Raises:
        UserError: a bad row under ``on_bad_row="error"``, or no problem at all.
    """
    problems: dict[str, Problem] = {}
    skipped: Counter[str] = Counter()
    for row in rows:
        if limit is not None and len(problems) >= limit:
            break
        try:
            problem = _problem(row, solutions, problems)
        except RowError as bad:
            if on_bad_row == "error":
                raise UserError(f"{source}: {bad.detail}; mend it, or leave such rows out with on_bad_row: skip") from None
            skipped[bad.reason] += 1
        else:
            problems[problem.id] = problem
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        rank_zero_only(logger.warning)(
            "%s: skipped %d rows (%s), kept %d", source, sum(skipped.values()), reasons, len(problems)
        )
    if not problems:
        raise UserError(f"{source} holds no problems" + (": every row was skipped" if skipped else "; check the file"))
    return list(problems.values())


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
    answer = _answer(row.answer, row.kind, place)
    solution = _text(row.solution) if solutions else None
    for text in (str(row.id), question, solution or ""):
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise RowError("not Unicode", f"{place} holds half of a surrogate pair, which is not Unicode text")
    return Problem(str(row.id), question, answer, solution)


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text or None


def _answer(value: object, kind: AnswerKind, place: str) -> Answer:
    if isinstance(value, bool) or value is None or (isinstance(value, str) and not value.strip()):
        raise RowError("no answer", f"{place} has no answer")
    letter = value.strip().lower() if isinstance(value, str) and kind != "number" else ""
    if len(letter) == 1 and letter in CHOICES:
        return letter
    if kind == "choice" or (len(letter) == 1 and letter.isalpha()):
        wanted = f"which is no choice from {CHOICES[0]} to {CHOICES[-1]}"
        raise RowError("answer is no choice", f"{place} has the answer {value!r}, {wanted}")
    number = stated_number(str(value))
    if number is None and is_ambiguous_number(str(value)):
        raise RowError(
            "ambiguous number",
            f"{place} has the answer {value!r}, which can be read in several ways: write decimals with a point (1.5) and "
            f"thousands in groups of three digits (1,500)",
        )
    if number is None:
        raise RowError("non-numeric answer", f"{place} has the answer {value!r}, which is not a finite number")
    return number

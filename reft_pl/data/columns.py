"""Guess which columns of a table hold the question, the answer and the solution: by name, else by content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reft_pl.data.files import RowError
from reft_pl.data.rows import reference_answer
from reft_pl.errors import UserError
from reft_pl.types import Answer

Rows = Sequence[Mapping[str, Any]]

QUESTIONS = ("question", "problem", "prompt", "instruction", "query", "input")
QUESTION_PARTS = (("body", "question"), ("instruction", "input"))
OPTIONS = ("options", "choices")
ANSWERS = (
    "answer", "final_answer", "answer_value", "expected_answer", "correct_answer", "ground_truth", "gold", "target", "label",
    "correct", "result", "solution", "response", "completion", "output",
)  # fmt: skip
SOLUTIONS = (
    "solution", "answer_cot", "cot", "chain_of_thought", "rationale", "reasoning", "explanation", "program", "code",
    "response", "completion", "output",
)  # fmt: skip
"""Usual names, in the order in which they are tried, without regard to case, spaces, hyphens and underscores."""

HASHES = r"####\s*(.+)"
BOXED = r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"
PATTERNS = (None, HASHES, BOXED)
"""Where in its column an answer may be: all of it, after GSM8K's marker, in MATH's box."""

_ENOUGH = 0.5
"""Share of readable answers from which a column counts as the answer's."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns, and the pattern that extracts the answer from its column."""

    question: tuple[str, ...]
    answer: str
    solution: str | None
    answer_pattern: str | None


def guess_columns(rows: Rows, question: Sequence[str] = (), answer: str | None = None, solution: str | None = None) -> Columns:
    """Guess the columns that the user does not name.

    Args:
        rows: Rows of the table, at least one.
        question: Names of the question's columns, if known.
        answer: Name of the answer's column, if known.
        solution: Name of the solution's column, if known.

    Raises:
        UserError: the table lacks a named column, or no column can be the question or the answer.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in (*question, answer, solution):
        if name is not None and name not in names:
            raise UserError(f"there is no column {name!r}: the table has {', '.join(map(repr, names))}")
    answer, pattern = _answer_column(rows, names, answer, question)
    asked = tuple(question) or _question_columns(rows, names, answer)
    if solution is None:
        solution = _solution_column(rows, names, {*asked, *(() if pattern else (answer,))}, answer, pattern)
    return Columns(asked, answer, solution, pattern)


def stated(value: object, pattern: str | None) -> Answer | None:
    """Return the answer in a field, or None if there is none that can be read."""
    if pattern is not None:
        found = re.findall(pattern, str(value))
        value = found[-1] if found else None
    try:
        return reference_answer(value, "auto", "")
    except RowError:
        return None


def _answer_column(rows: Rows, names: Sequence[str], given: str | None, question: Sequence[str]) -> tuple[str, str | None]:
    """Return the answer's column and pattern: the first usual name with readable answers, else the most readable column."""
    usual = [given] if given else _named(names, ANSWERS)
    others = [] if given else sorted((name for name in names if name not in usual), key=lambda name: _numbers_rows(rows, name))
    best: tuple[float, str, str | None] | None = None
    for name in [*usual, *others]:
        if name in question or (best is not None and name in others and _numbers_rows(rows, name)):
            continue
        for pattern in PATTERNS:
            share = sum(stated(row.get(name), pattern) is not None for row in rows) / len(rows)
            if share >= _ENOUGH and name in usual:
                return name, pattern
            if share and (best is None or share > best[0]):
                best = share, name, pattern
    if best is None:
        where = f"the column {given!r}" if given else f"any of the columns {', '.join(map(repr, names))}"
        raise UserError(
            f"no answer in {where} is a number or a letter from a to e: name the answer's column with --answer, or write "
            f"the answers in this form"
        )
    return best[1], best[2]


def _question_columns(rows: Rows, names: Sequence[str], answer: str) -> tuple[str, ...]:
    texts = [name for name in names if name != answer and _share_of_text(rows, name) >= _ENOUGH]
    for parts in QUESTION_PARTS:
        found = [name for part in parts for name in _named(texts, (part,))]
        if len(found) == len(parts):
            return tuple(found)
    usual = _named(texts, QUESTIONS)
    if not usual:
        # Questions end in a question mark more often than solutions, and are longer than ids.
        marks = {name: sum("?" in str(row.get(name)) for row in rows) for name in texts}
        usual = sorted(texts, key=lambda name: (-marks[name], -_length(rows, name)))
    if not usual:
        raise UserError(f"no column of text can be the question: name one of {', '.join(map(repr, names))} with --question")
    letters = sum(isinstance(stated(row.get(answer), None), str) for row in rows) >= _ENOUGH * len(rows)
    return (usual[0], *(_named(texts, OPTIONS)[:1] if letters else ()))


def _solution_column(rows: Rows, names: Sequence[str], taken: set[str], answer: str, pattern: str | None) -> str | None:
    free = [name for name in names if name not in taken and any(_is_text(row.get(name)) for row in rows)]
    usual = [name for name in _named(free, SOLUTIONS) if name != answer]
    if usual:
        return usual[0]
    if pattern is not None:  # the answer is the end of its solution
        return answer
    return next((name for name in free if _states_answers(rows, name, answer)), None)


def _states_answers(rows: Rows, name: str, answer: str) -> bool:
    """Return whether most texts of a column are programs, or have several words and mention the row's answer."""
    texts = [(str(row.get(name)), str(row.get(answer)).removesuffix(".0")) for row in rows]
    return sum("def " in text or (len(text.split()) > 3 and last in text) for text, last in texts) > _ENOUGH * len(rows)


def _named(names: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Return the names that are usual ones, in the usual order."""
    plain = {re.sub(r"[\s_-]", "", name).casefold(): name for name in reversed(names)}
    return [plain[key] for name in usual if (key := name.replace("_", "")) in plain]


def _numbers_rows(rows: Rows, name: str) -> bool:
    """Return whether a column numbers the rows, as ids do, rather than answers them."""
    values = [value for row in rows if isinstance(value := stated(row.get(name), None), float)]
    return len(values) == len(rows) > 2 and all(after - before == 1 for before, after in pairwise(values))


def _share_of_text(rows: Rows, name: str) -> float:
    return sum(_is_text(row.get(name)) for row in rows) / len(rows)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _length(rows: Rows, name: str) -> float:
    return sum(len(str(row.get(name))) for row in rows) / len(rows)

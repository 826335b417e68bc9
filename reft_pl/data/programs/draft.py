"""What a reader of an official release makes of a row: a solution, and how to find out whether it is right."""

from __future__ import annotations

from dataclasses import dataclass

from reft_pl.formats.answers import TOLERANCE
from reft_pl.types import Answer


@dataclass(frozen=True, slots=True)
class Check:
    """A program, and what it must come to: a letter, or a number up to ``tolerance``."""

    program: str
    answer: Answer
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Draft:
    """A problem with the solution that was written for it. It is right if all ``checks`` are (one in words has none)."""

    id: str
    question: str
    answer: Answer
    solution: str
    checks: tuple[Check, ...] = ()

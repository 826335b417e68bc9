"""Drafts of problems from official releases: a solution, and checks of whether it is correct."""

from __future__ import annotations

from dataclasses import dataclass

from reft_pl.formats.answers import TOLERANCE
from reft_pl.types import Answer


@dataclass(frozen=True, slots=True)
class Check:
    """A program and its expected answer: a letter, or a number within ``tolerance``."""

    program: str
    answer: Answer
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Draft:
    """A problem with a converted solution, which is correct if all ``checks`` pass; solutions in words have no checks."""

    id: str
    question: str
    answer: Answer
    solution: str
    checks: tuple[Check, ...] = ()

"""Keeping questions apart: the hold-out for validation, and no question in two sets."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Protocol, TypeVar

from reft_pl.errors import UserError
from reft_pl.types import Problem


class Asked(Protocol):
    """Anything that has a question: a problem, or what was sampled for one."""

    @property
    def question(self) -> str:
        """Its text."""


T = TypeVar("T", bound=Asked)

_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


def question_key(question: str) -> str:
    """The question without what does not make it another one: letter case, spacing, kind of quotation marks."""
    return "".join(unicodedata.normalize("NFKC", question).translate(_QUOTES).casefold().split())


def hold_out(problems: Sequence[Problem], n: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Split ``n`` questions off for validation.

    Which ones depends on the seed and on the questions themselves, not on their order or on the rest of the data. A question
    that stands several times is held out once, and its other occurrences are left out of training.

    Returns:
        The problems to train on and the ``n`` to validate on, each in the given order.
    """
    distinct = {question_key(p.question): p for p in reversed(problems)}
    if n >= len(distinct):
        raise UserError(f"data.holdout={n} leaves nothing to train on: there are {len(distinct)} different training questions")
    ranked = sorted(distinct, key=lambda key: sha256(f"{seed}:{key}".encode()).digest())
    held = set(ranked[:n])
    chosen = {distinct[key] for key in held}
    training = [p for p in problems if question_key(p.question) not in held]
    return training, [p for p in problems if p in chosen]


def without(problems: Sequence[T], others: Iterable[Asked]) -> list[T]:
    """The problems whose question is not among the others'."""
    keys = {question_key(p.question) for p in others}
    return [p for p in problems if question_key(p.question) not in keys]

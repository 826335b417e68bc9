"""Keeping questions apart: the hold-out for validation, and no question in two sets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Protocol, TypeVar

from reft_pl.errors import UserError
from reft_pl.types import Problem


class Asked(Protocol):
    """Anything that has a question: a problem, or what was sampled for one."""

    @property
    def question(self) -> str:
        """Its text."""


T = TypeVar("T", bound=Asked)

_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u2044", "''\"\"/")
_TAG = re.compile(r"<(super|sub|fraction|circle|square)>")
_AROUND = {"super": ("^", " "), "sub": ("_", " "), "fraction": (" ", " "), "circle": ("(", ")")}
_SPACES = re.compile(r"\s+")
_LOOSE_SPACE = re.compile(r"(?<!\d)(?<!\d[.,:/]) | (?![.,:/]?\d)")
"""A space that does not keep two numbers apart."""


def question_key(question: str) -> str:
    """The question without what does not make it another one: letter case, spacing, kind of quotation marks.

    What makes it another one stays: the space between two numbers, and whether a digit is an exponent, an index, part of a
    fraction or an item's number.
    """
    text = "".join(_plain(mark, "".join(run)) for mark, run in groupby(question, _mark))
    text = _SPACES.sub(" ", text.translate(_QUOTES).casefold())
    return _LOOSE_SPACE.sub("", text).strip()


def _mark(character: str) -> str:
    """How a character differs from the plain ones that it stands for, as Unicode has it; empty for most."""
    match = _TAG.match(unicodedata.decomposition(character))
    return match[1] if match else ""


def _plain(mark: str, run: str) -> str:
    """Characters of one mark as plain ones."""
    if mark in _AROUND:
        before, after = _AROUND[mark]
        characters = [run] if mark in ("super", "sub") else run
        return "".join(f"{before}{unicodedata.normalize('NFKC', part)}{after}" for part in characters)
    if mark == "square":  # a unit in one character, perhaps with an exponent
        parts = (chr(int(code, 16)) for character in run for code in unicodedata.decomposition(character).split()[1:])
        return "".join(_plain(inner, "".join(letters)) for inner, letters in groupby(parts, _mark))
    return unicodedata.normalize("NFKC", run)


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

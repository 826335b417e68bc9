"""Hold out validation questions, and keep every question in only one set."""

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
    """Anything with a question: a problem, or the samples of one."""

    @property
    def question(self) -> str:
        """The question's text."""


T = TypeVar("T", bound=Asked)

_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u2044", "''\"\"/")
_TAG = re.compile(r"<(super|sub|fraction|circle|square)>")
_AROUND = {"super": ("^", " "), "sub": ("_", " "), "fraction": (" ", " "), "circle": ("(", ")")}
_SPACES = re.compile(r"\s+")
_LOOSE_SPACE = re.compile(r"(?<!\d)(?<!\d[.,:/]) | (?![.,:/]?\d)")
"""A space that does not separate two numbers."""


def question_key(question: str) -> str:
    """Normalise a question so that equal questions have equal keys: letter case, spacing, quotation marks.

    Differences in meaning remain: a space between two numbers, and whether a digit is an exponent, an index, part of a
    fraction or an item number.
    """
    text = "".join(_plain(mark, "".join(run)) for mark, run in groupby(question, _mark))
    text = _SPACES.sub(" ", text.translate(_QUOTES).casefold())
    return _LOOSE_SPACE.sub("", text).strip()


def _mark(character: str) -> str:
    """Return Unicode's compatibility tag of a character (such as ``super``); empty for most characters."""
    match = _TAG.match(unicodedata.decomposition(character))
    return match[1] if match else ""


def _plain(mark: str, run: str) -> str:
    """Replace a run of characters with the same tag by plain characters."""
    if mark in _AROUND:
        before, after = _AROUND[mark]
        characters = [run] if mark in ("super", "sub") else run
        return "".join(f"{before}{unicodedata.normalize('NFKC', part)}{after}" for part in characters)
    if mark == "square":  # a unit as one character, possibly with an exponent
        parts = (chr(int(code, 16)) for character in run for code in unicodedata.decomposition(character).split()[1:])
        return "".join(_plain(inner, "".join(letters)) for inner, letters in groupby(parts, _mark))
    return unicodedata.normalize("NFKC", run)


def hold_out(problems: Sequence[Problem], n: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Hold out ``n`` questions for validation.

    Questions are ranked by a hash of seed and question, so the choice does not depend on the order of the problems. A question
    that occurs several times is held out once, and its other occurrences are dropped from training.

    Returns:
        The training problems and the ``n`` validation problems, each in the given order.
    """
    distinct = {question_key(p.question): p for p in reversed(problems)}
    if n >= len(distinct):
        raise UserError(
            f"data.holdout={n} leaves nothing to train on: there are only {len(distinct)} distinct training questions"
        )
    ranked = sorted(distinct, key=lambda key: sha256(f"{seed}:{key}".encode()).digest())
    held = set(ranked[:n])
    chosen = {distinct[key] for key in held}
    training = [p for p in problems if question_key(p.question) not in held]
    return training, [p for p in problems if p in chosen]


def without(problems: Sequence[T], others: Iterable[Asked]) -> list[T]:
    """Return the problems with questions that do not occur in ``others``."""
    keys = {question_key(p.question) for p in others}
    return [p for p in problems if question_key(p.question) not in keys]

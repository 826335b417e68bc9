"""The notation for situations: pieces of a story, each with wordings and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RUNNING = "x"
"""Name of the story's running quantity in a piece's arithmetic."""


@dataclass(frozen=True)
class Piece:
    """A few sentences of a story, and how they change its running quantity.

    ``texts`` are one or more wordings with slots. Sentences on either side of a ``|`` may swap. The slots:

    - ``{p}`` and ``{q}`` are people, ``{p's}`` and ``{q's}`` their possessives
    - ``{he}``, ``{his}`` and ``{him}`` are the pronouns of ``{p}``
    - ``{thing}`` and ``{thing+}`` are the singular and plural of a word of the situation
    - any other name is a number

    ``steps`` is ``name = expression; ...`` over the piece's numbers, its earlier steps and ``x``. A bare expression is a
    quantity that needs no step: a number that the story states, or ``x`` itself.

    ``numbers`` maps a number's name to its smallest and largest value.
    """

    steps: str
    texts: tuple[str, ...]
    numbers: Mapping[str, tuple[int, int]]


def piece(steps: str, *texts: str, **numbers: tuple[int, int]) -> Piece:
    """Create a piece from its arithmetic, its wordings and the ranges of its numbers."""
    return Piece(steps, texts, numbers)


@dataclass(frozen=True)
class Situation:
    """A kind of story: one opening, some of the events in any order, and one ending, which asks the question.

    ``words`` maps a slot to its candidate words: ``apple`` (plural with s) or ``box/boxes``.
    """

    name: str
    openings: tuple[Piece, ...]
    events: tuple[Piece, ...]
    endings: tuple[Piece, ...]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

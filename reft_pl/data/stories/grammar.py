"""The notation in which situations are written down: pieces of a story, each with its wording and its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RUNNING = "x"
"""In a piece's arithmetic: the quantity that the story has arrived at so far."""


@dataclass(frozen=True)
class Piece:
    """Some sentences of a story and what they do to its running quantity.

    ``texts`` are one or more wordings. In them ``{p}`` and ``{q}`` are people (``{p's}`` their possessives), ``{he}``,
    ``{his}``, ``{him}`` the pronouns of ``{p}``, ``{thing}`` and ``{thing+}`` the singular and plural of one of the
    situation's words, and any other name a number; sentences on the two sides of a ``|`` may change places.

    ``steps`` is ``name = expression; ...`` over the piece's numbers, its earlier steps and ``x``; a bare expression stands
    for a quantity that needs no step (a number that the story states, or ``x`` itself).

    ``numbers`` maps a number's name to its smallest and largest value.
    """

    steps: str
    texts: tuple[str, ...]
    numbers: Mapping[str, tuple[int, int]]


def piece(steps: str, *texts: str, **numbers: tuple[int, int]) -> Piece:
    """Write a piece: its arithmetic, its wordings, the ranges of its numbers."""
    return Piece(steps, texts, numbers)


@dataclass(frozen=True)
class Situation:
    """A kind of story: one opening, some of the events in any order, and one ending, which asks.

    ``words`` maps a slot to the words to choose from: ``apple`` (plural with s) or ``box/boxes``.
    """

    name: str
    openings: tuple[Piece, ...]
    events: tuple[Piece, ...]
    endings: tuple[Piece, ...]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

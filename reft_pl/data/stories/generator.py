"""Generate story problems: each is a pure function of seed, split and index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from reft_pl.data.stories.dice import Dice
from reft_pl.data.stories.plot import draw_plot
from reft_pl.data.stories.program import write_program
from reft_pl.data.stories.situations import SEEN, UNSEEN
from reft_pl.data.stories.telling import tell
from reft_pl.types import Problem

Split: TypeAlias = Literal["train", "validation", "test", "unseen"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unseen")

HELD_OUT_ORDERS = frozenset({"-*", "*+/", "/-", "+-*", "*--", "-*-"})
"""Operator sequences that occur only in ``unseen``."""

SHARES: dict[Split, range] = {"train": range(16), "validation": range(16, 18), "test": range(18, 20)}
"""The shares of number sets, out of 20 (``_share``), that belong to each split."""


def make_problem(split: Split, index: int, seed: int = 0, *, solution: bool = True) -> Problem:
    """Make problem ``index`` of ``split``.

    ``unseen`` has separate situations, and operator sequences that the other splits exclude. The other splits differ in the
    numbers of their problems.
    """
    dice = Dice("story", seed, split, index)
    unseen = split == "unseen"
    plot = None
    while plot is None:
        situation = dice.choice(UNSEEN if unseen else SEEN)
        plot = draw_plot(
            situation,
            dice,
            allows_order=lambda order: unseen or order not in HELD_OUT_ORDERS,
            allows_numbers=lambda numbers: unseen or _share(numbers) in SHARES[split],
        )
    question = tell(situation, plot, dice)
    program = write_program(question, plot, dice) if solution else None
    return Problem(f"story_{split}_{seed}_{index}", question, float(plot.answer), program)


def _share(numbers: Iterable[int]) -> int:
    """Assign a set of numbers to one of 20 shares. Equal questions have equal numbers, so splits share no question."""
    return Dice("share", *sorted(numbers)).between(0, 19)

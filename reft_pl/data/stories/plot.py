"""The plot of a story: its pieces, numbers and arithmetic, without any wording."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reft_pl.data.expression import (
    Expression,
    Name,
    Number,
    Step,
    evaluate,
    names,
    operators,
    parse,
    substitute,
)
from reft_pl.data.stories.dice import Dice
from reft_pl.data.stories.grammar import RUNNING, Piece, Situation
from reft_pl.data.stories.words import REMARKS

LARGEST = 2000
"""No quantity in a story exceeds this."""

OPERATIONS = (2, 4)
"""Fewest and most operations in a solution."""

EVENTS = (0, 1, 1, 2)
"""Numbers of events between opening and ending, repeated in proportion to their probability."""

NUMBER_DRAWS = 100
"""Attempts to draw numbers for one choice of pieces; fewer would underrepresent stories with divisions."""

REMARK_CHANCE = 0.2
"""Probability that a story contains an irrelevant number."""


@dataclass(frozen=True)
class Plot:
    """What happens in a story.

    ``pieces`` are in story order. ``numbers`` maps names to given numbers. ``steps`` is the solution over these names; the last
    step computes ``answer``. ``remark`` is a piece that is irrelevant to the answer.
    """

    pieces: tuple[Piece, ...]
    numbers: Mapping[str, int]
    steps: tuple[Step, ...]
    answer: int
    remark: Piece | None

    @property
    def order(self) -> str:
        """The operators in the order of evaluation."""
        return "".join(operators(step.expression) for step in self.steps)


def arithmetic(pieces: Sequence[Piece]) -> tuple[Step, ...]:
    """Chain the pieces' steps: each piece continues with the running quantity of the one before.

    A bare expression is substituted into the step that uses it. If the last piece has no step, the answer is the result of the
    last step before it.
    """
    steps: list[Step] = []
    running: Expression = Name(RUNNING)
    for piece in pieces:
        before = running
        for line in piece.steps.split(";"):
            name, equals, text = (part.strip() for part in line.rpartition("="))
            expression = substitute(parse(text), {RUNNING: before})
            if equals:
                steps.append(Step(name, expression))
                running = Name(name)
            else:
                running = expression
    return tuple(steps)


def draw_plot(
    situation: Situation, dice: Dice, allows_order: Callable[[str], bool], allows_numbers: Callable[[Collection[int]], bool]
) -> Plot | None:
    """Draw pieces and numbers; None if they do not make a fair problem, so that the caller draws again.

    A fair problem has a number of operations within ``OPERATIONS``, an allowed operator sequence, and allowed, distinct given
    numbers. Every intermediate quantity is a positive integer up to ``LARGEST``.
    """
    events = dice.sample(situation.events, min(dice.choice(EVENTS), len(situation.events)))
    pieces = (dice.choice(situation.openings), *events, dice.choice(situation.endings))
    remark = _draw_remark(pieces[0], dice) if dice.chance(REMARK_CHANCE) else None
    steps = arithmetic(pieces)
    order = "".join(operators(step.expression) for step in steps)
    if not OPERATIONS[0] <= len(order) <= OPERATIONS[1] or not allows_order(order):
        return None
    ranges = {name: limits for piece in (*pieces, remark) if piece is not None for name, limits in piece.numbers.items()}
    for _ in range(NUMBER_DRAWS):
        numbers = {name: dice.between(*limits) for name, limits in ranges.items()}
        if len(set(numbers.values())) == len(numbers) and allows_numbers(numbers.values()):
            outcomes = _outcomes(steps, numbers)
            if all(0 < outcome <= LARGEST and outcome.denominator == 1 for outcome in outcomes):
                return Plot(pieces, numbers, steps, int(outcomes[-1]), remark)
    return None


def _draw_remark(opening: Piece, dice: Dice) -> Piece:
    """Draw a remark; one about a person only if the story has a person."""
    has_person = all("{p}" in text or "{p's}" in text for text in opening.texts)
    return dice.choice([remark for remark in REMARKS if has_person or "{p}" not in remark.texts[0]])


def _outcomes(steps: Sequence[Step], numbers: Mapping[str, int]) -> list[Fraction]:
    values = {name: Fraction(number) for name, number in numbers.items()}
    outcomes = []
    for step in steps:
        values[step.name] = evaluate(step.expression, values)
        outcomes.append(values[step.name])
    return outcomes


def nested(steps: Sequence[Step]) -> Expression | None:
    """Return the whole solution as one expression, or None if a step's result is used more than once."""
    values: dict[str, Expression] = {}
    uses: dict[str, int] = {}
    for step in steps:
        for name in names(step.expression):
            uses[name] = uses.get(name, 0) + 1
        values[step.name] = substitute(step.expression, values)
    if any(uses.get(step.name, 0) > 1 for step in steps):
        return None
    return values[steps[-1].name]


def with_numbers(expression: Expression, numbers: Mapping[str, int]) -> Expression:
    """Replace names by the given numbers."""
    return substitute(expression, {name: Number(number) for name, number in numbers.items()})

"""Write story solutions as Python programs, in several annotation styles."""

from __future__ import annotations

from typing import Literal, TypeAlias

from reft_pl.data.expression import to_python
from reft_pl.data.stories.dice import Dice
from reft_pl.data.stories.plot import Plot, nested, with_numbers

Style: TypeAlias = Literal["steps", "givens", "nested"]
"""One line per step; given numbers assigned first, then one line per step; a single expression."""

STYLES: tuple[Style, ...] = ("steps", "steps", "givens", "nested")
"""The styles, repeated in proportion to their probability: half of the solutions have one line per step."""


def write_program(question: str, plot: Plot, dice: Dice) -> str:
    """Write the annotated solution: ``solution()`` with the question as docstring, in a random style."""
    lines = [*_body(plot, dice.choice(STYLES)), "return result"]
    return "\n    ".join([f'def solution():\n    """{question}"""', *lines])


def _body(plot: Plot, style: Style) -> list[str]:
    if style == "givens":
        givens = [f"{name} = {plot.numbers[name]}" for piece in plot.pieces for name in piece.numbers]
        return [
            *givens,
            *(f"{step.name} = {to_python(step.expression)}" for step in plot.steps),
            f"result = {plot.steps[-1].name}",
        ]
    if style == "nested" and (whole := nested(plot.steps)) is not None:
        return [f"result = {to_python(with_numbers(whole, plot.numbers))}"]
    *steps, last = [(step.name, to_python(with_numbers(step.expression, plot.numbers))) for step in plot.steps]
    return [*(f"{name} = {text}" for name, text in steps), f"result = {last[1]}"]

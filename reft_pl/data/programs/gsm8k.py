"""Convert GSM8K's written solutions with calculator annotations to programs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from reft_pl.data.expression import Expression, Name, Number, Operation, evaluate, names, numbers, to_python
from reft_pl.data.programs.arithmetic import NUMBER, read_number
from reft_pl.data.programs.equations import Equation, equations
from reft_pl.data.programs.given import comes_from, given_numbers
from reft_pl.data.programs.names import identifier, name_after, name_before
from reft_pl.data.programs.writing import Line, Unconvertible, write_program

_ROUNDINGS: dict[str, Callable[[Fraction], int]] = {"round": round, "math.floor": math.floor, "math.ceil": math.ceil}
_CONVERSIONS = frozenset({60, 100})  # as factors, these mean minutes and percent rather than an earlier step
_SAYS_ROUNDED = re.compile(rf"\bround(?:s|ed|ing)?\b[^.\d]*?(?:to|is|=)\s*\$?(?P<number>{NUMBER})", re.IGNORECASE)


@dataclass
class _Step:
    """A line of the program. ``known_as`` holds the values by which later equations may refer to it."""

    name: str
    expression: Expression
    value: Fraction
    known_as: set[Fraction]
    function: str = ""
    used: bool = False

    @property
    def text(self) -> str:
        """The right side of the assignment."""
        text = to_python(self.expression)
        return f"{self.function}({text})" if self.function else text


def program_of(question: str, solution: str) -> str:
    """Convert a written solution to a program, equation by equation.

    Each equation becomes a step, named after the words around it. A number that equals the result of an earlier step, and is
    not clearly from the question, becomes a reference to that step. The result is the step that the last line states; steps
    that it does not need are dropped. All literals come from the question or from the left sides of equations. A large literal
    that neither the question nor an earlier step explains (``120/40`` if no step gives 120) makes the conversion fail.

    Args:
        question: The docstring of the program, and the source of given numbers.
        solution: The text before ``####``, annotations included. The conversion does not use the reference answer.

    Raises:
        Unconvertible: no equation can be read, or a number has no known origin.
    """
    writer = _Writer(question)
    lines = [line for line in solution.splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        writer.read(line, last=number == len(lines))
    return writer.program()


@dataclass
class _Writer:
    question: str
    steps: list[_Step] = field(default_factory=list)
    result: _Step | None = None

    def __post_init__(self) -> None:
        self.given = given_numbers(self.question)

    def read(self, line: str, last: bool) -> None:
        """Add the steps of a line; the ``last`` line may state the result without an equation."""
        found = list(equations(line))
        for equation in found:
            self._add(equation)
        if rounded := _SAYS_ROUNDED.search(line):
            self._round(read_number(rounded["number"]), "round")
        elif last and not found:
            self._conclude(line)

    def program(self) -> str:
        """Return the program of the steps that the result needs."""
        if self.result is None:
            raise Unconvertible("no equation to read")
        needed = {self.result.name}
        for step in reversed(self.steps):
            if step.name in needed:
                needed.update(names(step.expression))
        kept = [step for step in self.steps if step.name in needed]
        if not all(comes_from(number, self.given) for step in kept for number in numbers(step.expression)):
            raise Unconvertible("a number of unknown origin")
        lines = [Line(step.name, step.text) for step in kept]
        return write_program(self.question, lines, self.result.name)

    def _add(self, equation: Equation) -> None:
        if isinstance(equation.expression, Number):  # "<<15=15>>" computes nothing
            self.result = self._known(equation.stated) or self.result
            return
        expression = self._resolve(equation.expression)
        try:
            value = evaluate(expression, {step.name: step.value for step in self.steps})
        except ZeroDivisionError:
            return
        same = next((step for step in self.steps if step.expression == expression and not step.function), None)
        if same is not None:
            same.known_as.add(equation.stated)
            self.result = same
            return
        self._append(_Step(self._name(equation), expression, value, {value, equation.stated}))
        if equation.stated.denominator == 1:
            self._round(equation.stated, "math.floor", rename=False)

    def _append(self, step: _Step) -> None:
        self.steps.append(step)
        self.result = step

    def _name(self, equation: Equation) -> str:
        taken = {step.name for step in self.steps}
        fallback = f"step_{len(self.steps) + 1}"
        after, before = name_after(equation.after, equation.currency), name_before(equation.before)
        first = identifier(after or before, (), fallback)
        if first in taken and before:  # the subject distinguishes a second "apples" from the first
            first = identifier(before, (), fallback)
        return identifier([first], taken, fallback)

    def _resolve(self, expression: Expression, factor: bool = False) -> Expression:
        """Replace values in an expression by the earlier steps that computed them.

        ``factor`` is whether the expression is an operand of a product or quotient.
        """
        if isinstance(expression, Number):
            value = Fraction(expression.value)
            step = self._known(value, only_unused=value in self.given or (factor and value in _CONVERSIONS))
            if step is None:
                return expression
            step.used = True
            return Name(step.name)
        if isinstance(expression, Operation):
            if expression.operator == "/" and expression.left == Number(Fraction(1)) and isinstance(expression.right, Number):
                return expression  # a fraction such as 1/4, not a division by an equal step
            factor = expression.operator in "*/"
            left, right = self._resolve(expression.left, factor), self._resolve(expression.right, factor)
            return Operation(expression.operator, left, right)
        return expression

    def _known(self, value: Fraction, only_unused: bool = False) -> _Step | None:
        """Return the step that a number refers to: the latest unused one, else the latest (None if ``only_unused``)."""
        steps = [step for step in self.steps if value in step.known_as]
        unused = [step for step in steps if not step.used]
        if not steps or (only_unused and not unused):
            return None
        return (unused or steps)[-1]

    def _conclude(self, line: str) -> None:
        """Set the result from a line without equations: the latest result if the line states it, else the first known step."""
        stated = [read_number(number) for number in re.findall(NUMBER, line)]
        if self.result is None or not self.result.known_as.isdisjoint(stated):
            return
        for value in stated:
            known = self._known(value)
            if known is not None:
                self.result = known
                return
            if self._round(value, "math.ceil"):
                return

    def _round(self, stated: Fraction, preferred: str, rename: bool = True) -> bool:
        """Round the latest result if that gives the integer that the text states; return whether it did."""
        step = self.result
        if step is None or step.value.denominator == 1 or abs(stated - step.value) >= 1:
            return False
        for function in sorted(_ROUNDINGS, key=lambda name: name != preferred):
            if _ROUNDINGS[function](step.value) == stated:
                if rename:
                    taken = {earlier.name for earlier in self.steps}
                    name = identifier(["rounded", step.name], taken, "rounded")
                    step.used = True
                    self._append(_Step(name, Name(step.name), stated, {stated}, function))
                else:
                    step.function, step.value = function, stated
                return True
        return False

"""GSM8K's written solutions, with their calculator annotations, as programs."""

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
_CONVERSIONS = frozenset({60, 100})  # as factors minutes and per cent, rather than a step used twice
_SAYS_ROUNDED = re.compile(rf"\bround(?:s|ed|ing)?\b[^.\d]*?(?:to|is|=)\s*\$?(?P<number>{NUMBER})", re.IGNORECASE)


@dataclass
class _Step:
    """A line of the program. ``known_as``: the values by which later equations may mean it."""

    name: str
    expression: Expression
    value: Fraction
    known_as: set[Fraction]
    function: str = ""
    used: bool = False

    @property
    def text(self) -> str:
        """Its right side."""
        text = to_python(self.expression)
        return f"{self.function}({text})" if self.function else text


def program_of(question: str, solution: str) -> str:
    """The program that computes what a written solution does, equation by equation.

    Each equation is a step, named by the words around it. A number in it that an earlier step came to, and that is not plainly
    one of the question's, is that step. The result is the step that the last line states. Steps that it does not need
    are left out. All numbers come from the question or from left sides of the solution's equations, and a larger one of these
    that neither the question nor an earlier step has (``120/40`` where nothing came to 120) makes no program.

    Args:
        question: For the docstring, and to tell given numbers from computed ones.
        solution: What stands before ``####``, annotations included. The answer itself is not asked for.

    Raises:
        Unconvertible: no equation can be read, or a number comes from nowhere.
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
        """Take over the steps of a line; the ``last`` one may state the result without computing it."""
        found = list(equations(line))
        for equation in found:
            self._add(equation)
        if said := _SAYS_ROUNDED.search(line):
            self._round(read_number(said["number"]), "round")
        elif last and not found:
            self._conclude(line)

    def program(self) -> str:
        """The whole program."""
        if self.result is None:
            raise Unconvertible("no equation to read")
        needed = {self.result.name}
        for step in reversed(self.steps):
            if step.name in needed:
                needed.update(names(step.expression))
        kept = [step for step in self.steps if step.name in needed]
        if not all(comes_from(number, self.given) for step in kept for number in numbers(step.expression)):
            raise Unconvertible("a number from nowhere")
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
        if first in taken and before:  # the subject tells the second "apples" from the first
            first = identifier(before, (), fallback)
        return identifier([first], taken, fallback)

    def _resolve(self, expression: Expression, factor: bool = False) -> Expression:
        """The expression with earlier steps in the place of their values; ``factor``: it is a side of a product or quotient."""
        if isinstance(expression, Number):
            value = Fraction(expression.value)
            step = self._known(value, but_not_again=value in self.given or (factor and value in _CONVERSIONS))
            if step is None:
                return expression
            step.used = True
            return Name(step.name)
        if isinstance(expression, Operation):
            if expression.operator == "/" and expression.left == Number(Fraction(1)) and isinstance(expression.right, Number):
                return expression  # a fraction, not a division by what happens to be as large
            factor = expression.operator in "*/"
            left, right = self._resolve(expression.left, factor), self._resolve(expression.right, factor)
            return Operation(expression.operator, left, right)
        return expression

    def _known(self, value: Fraction, but_not_again: bool = False) -> _Step | None:
        """The step that a number means: the latest that nothing used yet, or else the latest."""
        steps = [step for step in self.steps if value in step.known_as]
        unused = [step for step in steps if not step.used]
        if not steps or (but_not_again and not unused):
            return None
        return (unused or steps)[-1]

    def _conclude(self, line: str) -> None:
        """Let a line without equations say what the result is: the latest step if it names that, else the first it names."""
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
        """Round the latest result where that gives the whole number that the text states; says whether it did."""
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

"""Convert MathQA's linear formulas to programs, and clean its rationales."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from reft_pl.choices import CHOICES
from reft_pl.data.programs.arithmetic import NUMBER, read_number
from reft_pl.data.programs.mathqa_operations import NAMES, OPERATIONS, SPECIAL_CONSTANTS
from reft_pl.data.programs.names import identifier
from reft_pl.data.programs.writing import Line, Unconvertible, write_program

_STEP = re.compile(r"\s*(\w+)\s*\(([^()]*)\)\s*")
_CONSTANT = re.compile(r"const_(\d+(?:[._]\d+)?)")
_CONCLUSION = re.compile(
    rf"[\s,;]*\b(?:the\s+)?(?:correct\s+)?(?:ans|answer|option)\b[\s:=.\-]*(?:is\s+)?[\s:(\"']*(?:option\s+)?\(?[{CHOICES}]\b[\s).!\"']*$",
    re.IGNORECASE,
)


def rationale(text: str) -> str:
    """Strip the quotation marks around a rationale and the choice letter at its end.

    Raises:
        Unconvertible: nothing is left.
    """
    reasoning = _CONCLUSION.sub("", text.strip().strip('"').strip()).strip()
    if not reasoning:
        raise Unconvertible("no rationale")
    return reasoning


def numeric_program(question: str, problem: str, formula: str) -> str:
    """Convert a formula such as ``multiply(n0,const_100)|divide(#0,n1)|`` to a program that returns a number.

    Args:
        question: The docstring of the program.
        problem: The text with the numbers ``n0``, ``n1``, ..., in order.
        formula: The linear formula.

    Raises:
        Unconvertible: the formula cannot be read, or refers to an unknown operation, argument or number.
    """
    lines = formula_lines(problem, formula)
    return write_program(question, lines, lines[-1].name)


def choice_program(question: str, problem: str, formula: str, values: Mapping[str, float]) -> str:
    """Convert a formula to a program that returns the letter of the option nearest to the computed number.

    Args:
        question: The docstring of the program, options included.
        problem: The text with the numbers ``n0``, ``n1``, ..., in order.
        formula: The linear formula.
        values: The options that are numbers, by letter.

    Raises:
        Unconvertible: as for ``numeric_program``, or no option is a number.
    """
    if not values:
        raise Unconvertible("no option is a number")
    lines = formula_lines(problem, formula)
    value = lines[-1].name
    stated = ", ".join(f'"{letter}": {value:.12g}' for letter, value in values.items())
    lines.append(Line("options", f"{{{stated}}}"))
    nearest = f"min(options, key=lambda letter: abs(options[letter] - {value}))"
    return write_program(question, lines, nearest)


def formula_lines(problem: str, formula: str) -> list[Line]:
    """Convert each step of the formula to a line.

    Raises:
        Unconvertible: the formula cannot be read, or refers to an unknown operation, argument or number.
    """
    numbers = [str(_plain(read_number(number))) for number in re.findall(NUMBER, problem)]
    lines: list[Line] = []
    for step in filter(str.strip, formula.split("|")):
        match = _STEP.fullmatch(step)
        if match is None:
            raise Unconvertible("the formula cannot be read")
        template = OPERATIONS.get(match[1])
        if template is None:
            raise Unconvertible(f"unknown operation {match[1]}")
        arguments = [_argument(argument.strip(), numbers, lines) for argument in match[2].split(",")]
        try:
            text = template.format(*arguments)
        except IndexError:
            raise Unconvertible("an operation lacks an argument") from None
        lines.append(Line(identifier([NAMES.get(match[1], match[1])], {line.name for line in lines}, "step"), text))
    if not lines:
        raise Unconvertible("no formula")
    return lines


def _argument(text: str, numbers: Sequence[str], lines: Sequence[Line]) -> str:
    if text in SPECIAL_CONSTANTS:
        return SPECIAL_CONSTANTS[text]
    if constant := _CONSTANT.fullmatch(text):
        return str(_plain(Fraction(constant[1].replace("_", "."))))
    pool, digits = (numbers, text[1:]) if text[:1] == "n" else ([line.name for line in lines], text[1:])
    if text[:1] not in ("n", "#") or not digits.isdecimal() or int(digits) >= len(pool):
        raise Unconvertible("unknown argument")
    return pool[int(digits)]


def _plain(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)

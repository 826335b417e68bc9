"""Parse arithmetic as people write it in solutions into expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from reft_pl.data.expression import Expression, Number, Operation

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(rf"(?P<number>{NUMBER})|(?P<power>\*\*|\^)|(?P<sign>[-+*/×÷xX−–()\[\]%])|(?P<other>\S)")  # noqa: RUF001
_OPERATORS = {"×": "*", "x": "*", "X": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"}  # noqa: RUF001

Percent = Literal["hundredth", "unit"]
"""Meaning of a percent sign: division by a hundred, or a unit that all numbers share and that has no effect."""


class NoArithmetic(ValueError):  # noqa: N818 (an outcome, not an error)
    """The text is not an expression of numbers, the four operators and parentheses."""


def read_number(text: str) -> Fraction:
    """Return the exact value of a match of ``NUMBER``."""
    return Fraction(text.replace(",", ""))


def read_arithmetic(text: str, percent: Percent = "hundredth") -> Expression:
    """Parse ``80/100*10``, ``2(3+4)``, ``1,200 × 20%``. Adjacent factors are multiplied unless both are plain numbers.

    Args:
        text: Digits, operators and parentheses, without words or currency signs.
        percent: Meaning of a percent sign.

    Raises:
        NoArithmetic: the text contains anything else, or is not a valid expression.
    """  # noqa: RUF002
    tokens = []
    for match in _TOKEN.finditer(text):
        if match["other"] or match["power"]:
            raise NoArithmetic(f"{match[0]!r} in {text!r}")
        tokens.append(match["number"] or _OPERATORS.get(match[0], match[0]))
    reader = _Reader(tokens, percent)
    expression = reader.sum()
    if reader.position < len(tokens):
        raise NoArithmetic(f"{tokens[reader.position]!r} in {text!r}")
    return expression


@dataclass
class _Reader:
    """Recursive descent: a sum of products of factors."""

    tokens: Sequence[str]
    percent: Percent
    position: int = 0

    def sum(self) -> Expression:
        if self._peek() == "+":  # what remains of "S + 30 + 46" without its letter
            self.position += 1
        left = self._product()
        while self._peek() in ("+", "-"):
            operator = self._take()
            left = Operation(operator, left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._factor()
        while (token := self._peek()) in ("*", "/", "(") or (token[:1].isdigit() and self._after_parenthesis()):
            operator = self._take() if token in ("*", "/") else "*"
            left = Operation(operator, left, self._factor())
        return left

    def _factor(self) -> Expression:
        token = self._take()
        value: Expression
        if token == "-":
            value = self._factor()
            value = Number(-value.value) if isinstance(value, Number) else Operation("-", Number(0), value)
        elif token == "(":
            value = self.sum()
            if self._take() != ")":
                raise NoArithmetic("a parenthesis is not closed")
        elif token[:1].isdigit() or token[:1] == ".":
            value = Number(read_number(token))
        else:
            raise NoArithmetic(f"{token!r} in place of a number")
        if self._peek() == "%":
            self.position += 1
            if self.percent == "hundredth":
                value = Operation("/", value, Number(100))
        return value

    def _after_parenthesis(self) -> bool:
        return self.position > 0 and self.tokens[self.position - 1] == ")"

    def _peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self.position += 1
        return token

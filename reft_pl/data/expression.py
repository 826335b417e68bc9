"""Arithmetic as trees: parsed from Python's notation, evaluated exactly, written as Python."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@dataclass(frozen=True, slots=True)
class Number:
    """A number that the program states: whole, or a finite decimal."""

    value: int | Fraction


@dataclass(frozen=True, slots=True)
class Name:
    """A variable: a given number before it is drawn, or the outcome of an earlier step."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """``left operator right``."""

    operator: str
    left: Expression
    right: Expression


Expression: TypeAlias = Number | Name | Operation


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a program: ``name = expression``."""

    name: str
    expression: Expression


@lru_cache(maxsize=4096)  # the pieces of a story are parsed again for each story
def parse(text: str) -> Expression:
    """Read an expression of names, whole numbers, the four operators and parentheses.

    Raises:
        ValueError: the text holds anything else.
    """
    return _from_ast(ast.parse(text, mode="eval").body, text)


def _from_ast(node: ast.expr, text: str) -> Expression:
    if isinstance(node, ast.Name):
        return Name(node.id)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Number(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return Operation(OPERATORS[type(node.op)], _from_ast(node.left, text), _from_ast(node.right, text))
    raise ValueError(f"not plain arithmetic: {text!r}")


def substitute(expression: Expression, values: Mapping[str, Expression]) -> Expression:
    """Put ``values`` in the place of the names that they belong to; other names stay."""
    if isinstance(expression, Name):
        return values.get(expression.name, expression)
    if isinstance(expression, Operation):
        left, right = substitute(expression.left, values), substitute(expression.right, values)
        return Operation(expression.operator, left, right)
    return expression


def evaluate(expression: Expression, values: Mapping[str, Fraction]) -> Fraction:
    """Compute the exact value.

    Raises:
        KeyError: a name without a value.
        ZeroDivisionError: a division by zero.
    """
    if isinstance(expression, Number):
        return Fraction(expression.value)
    if isinstance(expression, Name):
        return values[expression.name]
    left, right = evaluate(expression.left, values), evaluate(expression.right, values)
    if expression.operator == "+":
        return left + right
    if expression.operator == "-":
        return left - right
    return left * right if expression.operator == "*" else left / right


def names(expression: Expression) -> Iterator[str]:
    """Every name in the expression, from left to right, as often as it stands there."""
    if isinstance(expression, Name):
        yield expression.name
    elif isinstance(expression, Operation):
        yield from names(expression.left)
        yield from names(expression.right)


def numbers(expression: Expression) -> Iterator[Fraction]:
    """Every number that the expression states, from left to right."""
    if isinstance(expression, Number):
        yield Fraction(expression.value)
    elif isinstance(expression, Operation):
        yield from numbers(expression.left)
        yield from numbers(expression.right)


def operators(expression: Expression) -> str:
    """The operators in the order in which Python applies them, e.g. ``*-`` for ``a * b - c``."""
    if not isinstance(expression, Operation):
        return ""
    return operators(expression.left) + operators(expression.right) + expression.operator


def to_python(expression: Expression) -> str:
    """Write the expression with no more parentheses than it needs."""
    if isinstance(expression, Number):
        return _digits(expression.value)
    if isinstance(expression, Name):
        return expression.name
    own = _binding(expression)
    left, right = to_python(expression.left), to_python(expression.right)
    if _binding(expression.left) < own:
        left = f"({left})"
    # "a - (b + c)" and "a / (b * c)" need theirs; "a + (b + c)" is written with them too, which costs nothing
    if _binding(expression.right) <= own:
        right = f"({right})"
    return f"{left} {expression.operator} {right}"


def _binding(expression: Expression) -> int:
    if not isinstance(expression, Operation):
        return 3
    return 1 if expression.operator in "+-" else 2


def _digits(value: int | Fraction) -> str:
    """Write a number as a decimal without more digits than it has."""
    if isinstance(value, int) or value.denominator == 1:
        return str(int(value))
    digits = f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    return digits.rstrip("0")

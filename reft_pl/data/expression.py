"""Arithmetic expression trees: parse Python notation, evaluate exactly, write Python."""

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
    """A literal number: an integer or a finite decimal."""

    value: int | Fraction


@dataclass(frozen=True, slots=True)
class Name:
    """A variable: a given number before its value is drawn, or the result of an earlier step."""

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


@lru_cache(maxsize=4096)  # stories share pieces, so the same texts are parsed repeatedly
def parse(text: str) -> Expression:
    """Parse an expression of names, integers, the four operators and parentheses.

    Raises:
        ValueError: the text contains anything else.
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
    """Replace names by their ``values``; other names stay."""
    if isinstance(expression, Name):
        return values.get(expression.name, expression)
    if isinstance(expression, Operation):
        left, right = substitute(expression.left, values), substitute(expression.right, values)
        return Operation(expression.operator, left, right)
    return expression


def evaluate(expression: Expression, values: Mapping[str, Fraction]) -> Fraction:
    """Compute the exact value.

    Raises:
        KeyError: a name has no value.
        ZeroDivisionError: the expression divides by zero.
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
    """Yield every occurrence of a name, from left to right."""
    if isinstance(expression, Name):
        yield expression.name
    elif isinstance(expression, Operation):
        yield from names(expression.left)
        yield from names(expression.right)


def numbers(expression: Expression) -> Iterator[Fraction]:
    """Yield every literal number, from left to right."""
    if isinstance(expression, Number):
        yield Fraction(expression.value)
    elif isinstance(expression, Operation):
        yield from numbers(expression.left)
        yield from numbers(expression.right)


def operators(expression: Expression) -> str:
    """Return the operators in evaluation order, e.g. ``*-`` for ``a * b - c``."""
    if not isinstance(expression, Operation):
        return ""
    return operators(expression.left) + operators(expression.right) + expression.operator


def to_python(expression: Expression) -> str:
    """Write the expression as Python, with almost no redundant parentheses."""
    if isinstance(expression, Number):
        return _digits(expression.value)
    if isinstance(expression, Name):
        return expression.name
    own = _binding(expression)
    left, right = to_python(expression.left), to_python(expression.right)
    if _binding(expression.left) < own:
        left = f"({left})"
    # Required in "a - (b + c)" and "a / (b * c)"; redundant but harmless in "a + (b + c)".
    if _binding(expression.right) <= own:
        right = f"({right})"
    return f"{left} {expression.operator} {right}"


def _binding(expression: Expression) -> int:
    if not isinstance(expression, Operation):
        return 3
    return 1 if expression.operator in "+-" else 2


def _digits(value: int | Fraction) -> str:
    """Write a number as a decimal without trailing zeros."""
    if isinstance(value, int) or value.denominator == 1:
        return str(int(value))
    digits = f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    return digits.rstrip("0")

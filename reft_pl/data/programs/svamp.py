"""Convert SVAMP's equations to programs."""

from __future__ import annotations

from reft_pl.data.expression import Expression, Name, Number, Operation, to_python
from reft_pl.data.programs.arithmetic import NoArithmetic, read_arithmetic
from reft_pl.data.programs.names import identifier
from reft_pl.data.programs.writing import Line, Unconvertible, write_program

_STEPS = {"+": "total", "-": "difference", "*": "product", "/": "quotient"}


def program_of(question: str, equation: str) -> str:
    """Convert an equation such as ``( ( 7.0 + 5.0 ) * 2.0 )`` to a program with one step per operation.

    Raises:
        Unconvertible: the equation is not arithmetic, or has no operation.
    """
    try:
        expression = read_arithmetic(equation)
    except NoArithmetic:
        raise Unconvertible("the equation cannot be read") from None
    if isinstance(expression, Number):
        raise Unconvertible("the equation computes nothing")
    lines: list[Line] = []
    result = _write(expression, lines)
    return write_program(question, lines, to_python(result))


def _write(expression: Expression, lines: list[Line]) -> Expression:
    """Append the steps of an expression; return the number or name that replaces it."""
    if not isinstance(expression, Operation):
        return expression
    left, right = _write(expression.left, lines), _write(expression.right, lines)
    base = _STEPS[expression.operator]
    name = identifier([base], {line.name for line in lines}, base)
    lines.append(Line(name, to_python(Operation(expression.operator, left, right))))
    return Name(name)

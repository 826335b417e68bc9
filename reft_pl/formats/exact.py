"""Exact values: fractions while they stay small, floats beyond that, never outside the range of a float."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypeAlias

from reft_pl.formats.tokens import Unreadable

_EXACT_BITS = 4096  # a larger numerator or denominator makes the value a float
_LARGEST_FACTORIAL = 170

Value: TypeAlias = Fraction | float


class TooLarge(Unreadable):
    """The value exceeds the range of a float."""


def as_float(value: Value) -> float:
    """Return the nearest float; infinite beyond the largest float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def literal(digits: str) -> Value:
    """Return the value of a number token: exact if possible, else a float, which may be infinite."""
    digits = digits.replace(",", "")
    value = float(digits)
    exact = len(digits) <= 400 and (1e-300 < value < 1e300 or not digits.strip("0."))
    return Fraction(digits) if exact else value


def bounded(value: Value) -> Value:
    """Convert an exact value to a float if it takes more than ``_EXACT_BITS``.

    Raises:
        TooLarge: the value exceeds the range of a float.
    """
    if isinstance(value, Fraction) and _bits(value) > _EXACT_BITS:
        value = as_float(value)
    if not is_finite(value):
        raise TooLarge("beyond the range of a float")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def power(base: Value, exponent: Value) -> Value:
    """Raise ``base`` to a power.

    Raises:
        TooLarge: the result exceeds the range of a float.
        Unreadable: there is no real result (``0^0`` included).
    """
    if not (is_finite(base) and is_finite(exponent)):
        raise Unreadable("an operand beyond the range of a float")
    if base == 0 and exponent <= 0:
        raise Unreadable("a power of zero")
    if base < 0 and not is_integer(exponent):
        raise Unreadable("no real power")
    size = _log2(-base if base < 0 else base) * as_float(exponent) if base else 0.0
    if abs(size) > 1100:
        if size > 0:
            raise TooLarge("beyond the range of a float")
        return 0.0
    if is_integer(exponent) and isinstance(base, Fraction) and abs(int(exponent)) * _bits(base) <= 4 * _EXACT_BITS:
        return bounded(base ** int(exponent))
    try:
        result = as_float(base) ** (int(exponent) if is_integer(exponent) else as_float(exponent))
    except OverflowError:
        raise TooLarge("beyond the range of a float") from None
    except ZeroDivisionError:  # the nearest float of a tiny base is 0
        raise Unreadable("a power of a number beyond the range of a float") from None
    root = round(result)
    return Fraction(root) if isinstance(exponent, Fraction) and abs(result - root) < 1e-12 * max(1, abs(root)) else result


def _log2(value: Fraction | float) -> float:
    if isinstance(value, Fraction):
        return math.log2(value.numerator) - math.log2(value.denominator)
    return math.log2(value)


def factorial(value: Value) -> Value:
    """Return ``n!``.

    Raises:
        TooLarge: the result exceeds the range of a float.
        Unreadable: ``value`` is not a natural number.
    """
    if not is_finite(value) or not is_integer(value) or value < 0:
        raise Unreadable("a factorial of a number that is not natural")
    if value > _LARGEST_FACTORIAL:
        raise TooLarge("beyond the range of a float")
    return Fraction(math.factorial(int(value)))


def is_integer(value: Value) -> bool:
    """Whether the value is an exact integer."""
    return isinstance(value, Fraction) and value.denominator == 1


def is_finite(value: Value) -> bool:
    """Whether the value is within the range of a float."""
    return math.isfinite(as_float(value))

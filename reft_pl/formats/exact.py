"""Exact values: fractions as long as they stay small, floats beyond, and nothing that no float holds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypeAlias

from reft_pl.formats.tokens import Unreadable

_EXACT_BITS = 4096  # beyond it a rational number continues as a float
_LARGEST_FACTORIAL = 170

Value: TypeAlias = Fraction | float


class TooLarge(Unreadable):
    """The value exceeds what a float holds."""


def as_float(value: Value) -> float:
    """The nearest float; infinite beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def literal(digits: str) -> Value:
    """Return the value of a number token; a float, maybe infinite, where its digits are many."""
    digits = digits.replace(",", "")
    value = float(digits)
    exact = len(digits) <= 400 and (1e-300 < value < 1e300 or not digits.strip("0."))
    return Fraction(digits) if exact else value


def bounded(value: Value) -> Value:
    """Continue as a float where an exact value takes too much room."""
    if isinstance(value, Fraction) and _bits(value) > _EXACT_BITS:
        value = as_float(value)
    if not is_finite(value):
        raise TooLarge("more than a float holds")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def power(base: Value, exponent: Value) -> Value:
    """Raise to a power.

    Raises:
        TooLarge: The result exceeds a float.
        Unreadable: There is no real result (``0^0`` included).
    """
    if not (is_finite(base) and is_finite(exponent)):
        raise Unreadable("an operand that no float holds")
    if base == 0 and exponent <= 0:
        raise Unreadable("a power of zero")
    if base < 0 and not is_integer(exponent):
        raise Unreadable("no real power")
    size = _log2(-base if base < 0 else base) * as_float(exponent) if base else 0.0
    if abs(size) > 1100:
        if size > 0:
            raise TooLarge("more than a float holds")
        return 0.0
    if is_integer(exponent) and isinstance(base, Fraction) and abs(int(exponent)) * _bits(base) <= 4 * _EXACT_BITS:
        return bounded(base ** int(exponent))
    try:
        result = as_float(base) ** (int(exponent) if is_integer(exponent) else as_float(exponent))
    except OverflowError:
        raise TooLarge("more than a float holds") from None
    except ZeroDivisionError:  # the nearest float of a tiny base is 0
        raise Unreadable("a power of a number that no float holds") from None
    root = round(result)
    return Fraction(root) if isinstance(exponent, Fraction) and abs(result - root) < 1e-12 * max(1, abs(root)) else result


def _log2(value: Fraction | float) -> float:
    if isinstance(value, Fraction):
        return math.log2(value.numerator) - math.log2(value.denominator)
    return math.log2(value)


def factorial(value: Value) -> Value:
    """Return ``n!``.

    Raises:
        TooLarge: The result exceeds a float.
        Unreadable: ``value`` is no natural number.
    """
    if not is_finite(value) or not is_integer(value) or value < 0:
        raise Unreadable("a factorial of another number than a natural one")
    if value > _LARGEST_FACTORIAL:
        raise TooLarge("more than a float holds")
    return Fraction(math.factorial(int(value)))


def is_integer(value: Value) -> bool:
    """Whether the value is an exact integer."""
    return isinstance(value, Fraction) and value.denominator == 1


def is_finite(value: Value) -> bool:
    """Whether a float holds the value."""
    return math.isfinite(as_float(value))

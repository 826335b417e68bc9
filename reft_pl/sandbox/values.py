"""Encode the object that ``solution()`` returned as a result frame.

This runs in the program's own process, so it trusts no object. It takes the type at C level: ``type(x)`` ignores a forged
``__class__``. It reads numbers through the base class's slot, which a subclass cannot override. It never calls ``str``,
``repr`` or ``==`` on the object. Standard library only. The returned object determines the status:

- ``ok``: int, float and their subclasses; Fraction, Decimal, mpmath's mpf; NumPy integers and floats; SymPy numbers and
  expressions without free symbols.
- ``ok`` with a choice: one letter from a to e (``"b"``, ``" B "``).
- ``non_numeric``: any other text (``"72"`` too), complex numbers, SymPy expressions with free symbols.
- ``non_finite``: NaN, infinity.
- ``too_large``: an integer beyond the range of a double.
- ``wrong_type``: ``True``, None, tuples, lists, everything else.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from reft_pl.choices import CHOICES
from reft_pl.sandbox.frames import encode_choice, encode_failure, encode_number

# A program may empty or patch `builtins` before this code runs, so everything it needs is bound here in advance.
_type, _issubclass, _float, _str, _complex, _bool, _int = type, issubclass, float, str, complex, bool, int
_overflow_error, _base_exception = OverflowError, BaseException
_float_of_float, _float_of_int = float.__float__, int.__float__
_strip, _lower, _len = str.strip, str.lower, len
_name_of_class = type.__dict__["__name__"].__get__
_pack = struct.pack


def loaded_number_types() -> tuple[tuple[type, ...], type | None]:
    """Return the number classes of the imported modules that ``float`` can read, and SymPy's ``Expr``.

    Call this before the program runs: a program may put anything into ``sys.modules``.
    """
    modules = sys.modules
    numbers: list[type] = []
    if "fractions" in modules:
        numbers.append(modules["fractions"].Fraction)
    if "decimal" in modules:
        numbers.append(modules["decimal"].Decimal)
    if "numpy" in modules:
        numbers += [modules["numpy"].integer, modules["numpy"].floating]
    if "mpmath" in modules:
        numbers.append(modules["mpmath"].mpf)
    return tuple(numbers), modules["sympy"].Expr if "sympy" in modules else None


def type_name(value: object) -> str:
    """Return the name of the value's type, ignoring any ``__name__`` that its metaclass defines."""
    name: str = _name_of_class(_type(value))
    return name


def encode_value(value: Any, number_types: tuple[type, ...] = (), expression_type: type | None = None) -> bytes:  # noqa: PLR0911
    """Encode a returned object as a frame body; the module docstring lists the statuses.

    Args:
        value: What ``solution()`` returned.
        number_types: Classes besides int and float with instances that ``float`` may read.
        expression_type: SymPy's ``Expr`` if SymPy is loaded.

    Raises:
        BaseException: anything that a method of the program's own object raises; the caller must catch it.
    """
    kind = _type(value)
    number: float
    if _issubclass(kind, _float):
        number = _float_of_float(value)
    elif _issubclass(kind, _int) and kind is not _bool:
        try:
            number = _float_of_int(value)
        except _overflow_error:
            return encode_failure("too_large")
    elif _issubclass(kind, _str):
        letter = _lower(_strip(value))
        if _len(letter) == 1 and letter in CHOICES:
            return encode_choice(letter)
        return encode_failure("non_numeric", "text")
    elif _issubclass(kind, number_types) or (expression_type is not None and _issubclass(kind, expression_type)):
        if expression_type is not None and _issubclass(kind, expression_type) and value.is_number is not True:
            return encode_failure("non_numeric", type_name(value))
        try:
            number = _float_of_float(_float(value))
        except _overflow_error:
            return encode_failure("too_large", type_name(value))
        except (TypeError, ValueError):
            return encode_failure("non_numeric", type_name(value))
    elif _issubclass(kind, _complex):
        return encode_failure("non_numeric", "complex")
    else:
        return encode_failure("wrong_type", type_name(value))
    return encode_number(number) if number - number == 0 else encode_failure("non_finite")

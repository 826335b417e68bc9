"""What counts as an answer: from the object that ``solution()`` returned to the body of a frame.

Runs in the process that ran the program, so it believes no object: it asks for the type at C level (``type(x)``, which
``__class__`` cannot falsify), takes numbers out through the base class's own slot (which a subclass cannot override), and never
calls ``str``, ``repr`` or ``==`` on what it was given. Standard library only.

===================================================  ==============================================================
returned                                             status
===================================================  ==============================================================
int, float and their subclasses                      ok
Fraction, Decimal, mpmath's mpf,                     ok
NumPy's integers and floats
SymPy's numbers and expressions without free symbol  ok
``"b"``, ``" B "``                                   ok, the choice ``b`` (one letter, a to e)
any other text (``"72"`` too), complex numbers,      non_numeric
SymPy expressions with free symbols
NaN, infinity                                        non_finite
an integer beyond the range of a double              too_large
``True``, None, tuples, lists, everything else       wrong_type
===================================================  ==============================================================
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from reft_pl.choices import CHOICES
from reft_pl.sandbox.frames import encode_choice, encode_failure, encode_number

# A program may have emptied or patched `builtins` by the time this code runs: everything it needs is bound here, beforehand.
_type, _issubclass, _float, _str, _complex, _bool, _int = type, issubclass, float, str, complex, bool, int
_overflow_error, _base_exception = OverflowError, BaseException
_float_of_float, _float_of_int = float.__float__, int.__float__
_strip, _lower, _len = str.strip, str.lower, len
_name_of_class = type.__dict__["__name__"].__get__
_pack = struct.pack


def loaded_number_types() -> tuple[tuple[type, ...], type | None]:
    """Number classes of the modules imported so far: those that ``float`` reads, and SymPy's expressions.

    Call it before the program runs, which may put anything into ``sys.modules``.
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
    """Name of the value's type, past any ``__name__`` that its metaclass defines."""
    name: str = _name_of_class(_type(value))
    return name


def encode_value(value: Any, number_types: tuple[type, ...] = (), expression_type: type | None = None) -> bytes:  # noqa: PLR0911
    """Return the frame body for a returned object; see the table above.

    Args:
        value: What ``solution()`` returned.
        number_types: Classes beyond int and float whose instances ``float`` may read.
        expression_type: SymPy's ``Expr``, where SymPy is loaded.

    Raises:
        BaseException: whatever a method of an object of the program's making raises; to be caught by the caller.
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

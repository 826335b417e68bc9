"""Encoding of returned objects, honest and forged (all defined here, none untrusted)."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import sympy

from reft_pl.sandbox.frames import decode_body
from reft_pl.sandbox.values import encode_value, loaded_number_types, type_name

NUMBER_TYPES, EXPRESSION = loaded_number_types()


class FloatThatLies(float):
    def __float__(self):
        return 42.0

    def __eq__(self, other):
        return True

    __hash__ = None


class IntThatLies(int):
    def __float__(self):
        return 42.0

    def __index__(self):
        return 42


class StrThatLies(str):
    __slots__ = ()

    def lower(self):
        return "a"

    def strip(self):
        return "a"


class Impostor:
    __class__ = float

    def __float__(self):
        return 42.0


class Nameless(type):
    @property
    def __name__(cls):
        raise SystemExit


class HasNoName(metaclass=Nameless):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7.0),
        (-0.5, -0.5),
        (10**300, 1e300),
        (Fraction(3, 2), 1.5),
        (Decimal("2.25"), 2.25),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.uint8(200), 200.0),
        (sympy.Rational(3, 2), 1.5),
        (sympy.Integer(5), 5.0),
        (sympy.sqrt(4), 2.0),
        (sympy.pi, math.pi),
        (FloatThatLies(7), 7.0),
        (IntThatLies(7), 7.0),
        ("b", "b"),
        (" E\n", "e"),
        (StrThatLies("c"), "c"),
    ],
)
def test_answers(value, expected):
    assert decode_body(encode_value(value, NUMBER_TYPES, EXPRESSION)) == ("ok", expected, "")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (True, "wrong_type"),
        (np.True_, "wrong_type"),
        (sympy.true, "wrong_type"),
        (None, "wrong_type"),
        ((72, 73), "wrong_type"),
        ([72], "wrong_type"),
        (b"72", "wrong_type"),
        (np.array([1.0]), "wrong_type"),
        (np.array(1.0), "wrong_type"),
        ({sympy.Integer(1)}, "wrong_type"),
        (len, "wrong_type"),
        pytest.param(Impostor(), "wrong_type", id="impostor"),
        pytest.param(HasNoName(), "wrong_type", id="has_no_name"),
        ("72", "non_numeric"),
        ("f", "non_numeric"),
        ("ab", "non_numeric"),
        ("", "non_numeric"),
        (StrThatLies("zz"), "non_numeric"),
        (1 + 2j, "non_numeric"),
        (sympy.Symbol("x") + 1, "non_numeric"),
        (sympy.I, "non_numeric"),
        (sympy.zoo, "non_numeric"),
        (math.nan, "non_finite"),
        (-math.inf, "non_finite"),
        (FloatThatLies("nan"), "non_finite"),
        (Decimal("NaN"), "non_finite"),
        (np.float64("inf"), "non_finite"),
        (sympy.nan, "non_finite"),
        (sympy.oo, "non_finite"),
        (10**400, "too_large"),
        (IntThatLies(10**400), "too_large"),
        (Fraction(10**400), "too_large"),
    ],
)
def test_values_that_are_not_answers(value, status):
    assert decode_body(encode_value(value, NUMBER_TYPES, EXPRESSION))[:2] == (status, None)


def test_a_metaclass_cannot_change_a_reported_name():
    assert type_name(HasNoName()) == "HasNoName"

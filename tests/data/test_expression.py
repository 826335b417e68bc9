"""Arithmetic trees: order of operation, exact values, parentheses."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.data.expression import Expression, Number, Operation, evaluate, operators, parse, substitute, to_python

TREES: st.SearchStrategy[Expression] = st.recursive(
    st.builds(Number, st.integers(1, 50)), lambda t: st.builds(Operation, st.sampled_from("+-*/"), t, t), max_leaves=6
)


@pytest.mark.parametrize(
    ("text", "numbers", "value", "order"),
    [
        ("a * b - c", (7, 3, 2), 19, "*-"),
        ("a - (b - c)", (7, 3, 1), 5, "--"),
        ("a / (b * c)", (7, 3, 5), Fraction(7, 15), "*/"),
        ("(a + b) / c", (7, 13, 5), 4, "+/"),
    ],
)
def test_hand_computed(text: str, numbers: tuple[int, int, int], value: Fraction, order: str) -> None:
    values = dict(zip("abc", map(Fraction, numbers), strict=True))
    assert evaluate(parse(text), values) == value
    assert operators(parse(text)) == order
    assert to_python(parse(text)) == text


@given(TREES)
def test_the_value_survives_a_round_trip(tree: Expression) -> None:
    try:
        expected = evaluate(tree, {})
    except ZeroDivisionError:
        return
    assert evaluate(parse(to_python(tree)), {}) == expected


def test_substitution_leaves_other_names() -> None:
    assert to_python(substitute(parse("x * n - m"), {"x": parse("a + b"), "n": Number(2)})) == "(a + b) * 2 - m"


@pytest.mark.parametrize("text", ["a ** b", "f(a)", "1.5 + a", "a if b else c", "True", "-a"])
def test_anything_but_plain_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not plain arithmetic"):
        parse(text)

r"""Arithmetic in answers: values checked by hand or with fractions, refusals, and bounded work."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reft_pl.formats.parsing import parse_number, read_answer
from reft_pl.types import Status


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("40+2", 42), ("5!", 120), ("5 - 2", 3), ("20-2", 18), (r"6 \times 7", 42), (r"9 \times 2", 18), ("3!", 6), ("0!", 1),
        ("2^3", 8), ("10^5", 1e5), ("2**3", 8), ("2^{10}", 1024), ("2^-3", 0.125), ("-2^2", -4), ("(-2)^2", 4), ("2^2^3", 256),
        (r"\frac13", 1 / 3), (r"\frac12", 0.5), (r"\frac1{2}", 0.5), (r"\dfrac{10}{4}", 2.5), (r"1 + \frac{1}{2}", 1.5),
        (r"2\sqrt3", 2 * math.sqrt(3)), (r"\sqrt[3]{27}", 3), (r"\frac{\sqrt{3}}{2}", math.sqrt(3) / 2), ("\u221a16", 4),
        ("2\u221a3", 2 * math.sqrt(3)), (r"\sqrt{2}", math.sqrt(2)), (r"2^{\frac{1}{2}}", math.sqrt(2)), ("(-3)^0", 1),
        ("3pi", 3 * math.pi), (r"2\pi", 2 * math.pi), (r"5 \cdot \pi", 5 * math.pi), ("2 \u03c0", 2 * math.pi),
        ("2 1/2", 2.5), ("-1 1/2", -1.5), (r"2\frac12", 2.5), ("3\u00bd", 3.5), ("3 \u00bd", 3.5), ("2 - 1/2", 1.5),
        ("5\u00b2", 25), ("10\u207b\u00b2", 0.01), ("1.5\u00b710^3", 1500), ("3 x 10^5", 3e5), ("3x10^5", 3e5), ("9 x 2", 18),
        (r"8 \div 2", 4), ("8 \u00f7 2", 4), ("2(3+4)", 14), (r"\left( 1 + 2 \right) \cdot 3", 9), ("(5)(3)", 15),
        ("5 minus 2", 3), ("5 times 2", 10), ("1/3+1/3+1/3", 1), ("5-12+1", -6), ("-5 - 3", -8), ("((((1))))", 1),
        (r"4^{1/2}", 2), ("$5 + $2", 7), ("5--2", 7),
    ],
)  # fmt: skip
def test_a_whole_expression_is_evaluated(text: str, value: float) -> None:
    assert parse_number(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "10-15", "$10-$15", "10 - 15", "10\u201315", "18 \u2013 20", "2-1/2", "2026-11-29", "3/4/2020",
        "12/3/2",  # ranges, dates
        "1/2(3)", r"1/2\pi", "6/2(1+2)", r"2\frac{3}{2}", "2 3/2", r"\frac123", "2{3}", "2 (3)", "0x10", "2x3",  # ambiguous
        "2x", "2 x", "3+4i", "3i", "3e", "x^2", "5!!", "2.5!", "(-3)!", "0^0", "1/0", "5/(2-2)", "(-8)^{1/3}", r"\sqrt{-1}",
        "--5", "5-", "5+", "5*", "+", "5 +", r"\frac{1}", r"\frac", r"\sqrt", "(5", "5)", "5^", "^5", "5 5", "7 mod 3",
        "100% - 20%",
        r"\log 5", r"\binom{5}{2}", r"\pm 5", "> 5", "|-5|", r"20\% \times 50", "1.2.3+1", r"0.1\overline{6}", "0.333...",
    ],
)  # fmt: skip
def test_ambiguous_or_invalid_expressions_are_refused(text: str) -> None:
    assert read_answer(text, 5.0).status is Status.NON_NUMERIC


@pytest.mark.parametrize(
    "text", ["9^9^9^9", "10000!", "171!", "((9!)!)!", "10^309", "1e400", "9" * 5000, "10^{10^{10}}", "2^1e300", "1.01^1000000"]
)
def test_values_beyond_floats_are_too_large(text: str) -> None:
    assert read_answer(text, 1.0).status is Status.TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        "(" * 300 + "1" + ")" * 300, "{" * 5000, "-" * 5000, "2^" * 1000 + "2", r"2\frac{" * 300, r"\sqrt{" * 300,
        "1+" * 9000 + "1",
        "1.0000001^2000*" * 100 + "1", "1." + "0" * 390 + "1^2000", "(1 " * 300, "1/" * 300, "0.5^1000000",
        "9" * 1_000_000 + "+1",
    ],
)  # fmt: skip
def test_work_is_bounded(text: str) -> None:
    start = time.process_time()
    read_answer(text, 1.0)
    assert time.process_time() - start < 2


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction]:
    """Generate nested arithmetic with its exact value."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 9999))
        return str(number), Fraction(number)
    left, a = draw(expressions(depth - 1))
    right, b = draw(expressions(depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", r"\times", "/", "frac", "^"]))
    if kind == "^":
        power = draw(st.integers(1, 3))
        return rf"\left({left}\right)^{{{power}}}", a**power
    if kind in ("/", "frac") and b == 0:
        return left, a
    if kind == "frac":
        return rf"\frac{{{left}}}{{{right}}}", a / b
    value = {"+": a + b, "-": a - b, "*": a * b, r"\times": a * b}.get(kind, a / b if b else a)
    return f"(({left}) {kind} ({right}))", value


@settings(deadline=None)
@given(expressions())
def test_values_are_those_of_exact_arithmetic(expression: tuple[str, Fraction]) -> None:
    text, value = expression
    assert parse_number(text) == pytest.approx(float(value), rel=1e-12)


@settings(deadline=None)
@given(st.text(alphabet="0123456789.,+-*/^!()[]{} xe%$=:\\fracsqtpi", max_size=40))
def test_no_text_raises(text: str) -> None:
    parse_number(text)


@pytest.mark.parametrize(
    "text",
    [
        r"\sqrt{1e400}", r"\sqrt[3]{10^{400}}", "√" + "9" * 400, r"\pi/(10^{-200}*10^{-200})",
        r"\frac{\pi}{10^{-200}*10^{-200}}", r"(10^{-200}*10^{-200})^{-0.5}", r"(10^{-200}*10^{-200})^{0.5}",
    ],
)  # fmt: skip
def test_values_at_the_edges_of_floats_raise_nothing_but_refusals(text):
    assert read_answer(text, None).value in (None, 0.0)

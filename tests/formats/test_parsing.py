from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.formats.parsing import answer_text, last_boxed, parse_choice, parse_number, read_answer
from reft_pl.types import Status


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18), ("1,234", 1234), ("1,234,567.5", 1234567.5), ("$18", 18), ("-$5", -5), ("$ -5", -5), ("- 5", -5), ("+7", 7),
        ("\u22127", -7), ("3/4", 0.75), ("1 1/2", 1.5), ("-1 1/2", -1.5), (r"\frac{3}{4}", 0.75), (r"-\dfrac{1}{2}", -0.5),
        ("25%", 25), (r"18\%", 18), ("18 dollars", 18), ("203 pairs of birds.", 203), ("x = 5", 5), ("2 + 3 = 5.", 5),
        (".5", 0.5), ("5.", 5), ("1e5", 1e5), ("2.5e-3", 2.5e-3), (r"3 \times 10^{5}", 3e5), (r"\text{18}", 18),
        (r"\$1{,}234.50", 1234.5), ("<203>", 203), ("**42**", 42), ("$42$", 42),
        ("60 minutes (1 hour)", 60), ("\u20ac9", 9),
        ("5 apples", 5), ("5 dollars", 5), (r"5\text{ cm}", 5), (r"5\%", 5), ("5 cm^2", 5), ("5 kg", 5), ("5 third-graders", 5),
        (r"5\ \mathrm{cm}^2", 5), (r"90^\circ", 90), (r"90^{\circ}", 90), (r"\approx 5", 5), (r"x \approx 5.1", 5.1),
        (r"\(5\)", 5), (r"10,\!000", 1e4), (r"10\,000", 1e4), (r"2\frac{1}{2}", 2.5), (r"\sqrt{4} = 2", 2),
        (r"\textbf{\text{7} cm}", 7),
        ("5 hands and a foot", 5), (r"\frac{3}{4} \text{ of it}", 0.75), ("H2O: 5 l", 5),
    ],
)  # fmt: skip
def test_numbers(text, number):
    assert parse_number(text) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "none", "b2", "1,5", "12,34", "1.2.3", "3/4/2020", "5/0", "nan", "two", "x2", "2, 3", "10:30"]
)
def test_not_numbers(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    "text",
    [
        r"\log 5", r"\binom{5}{2}", "1.5 million", "1.5-million", r"1.5\text{ million}", "3 hundred", "4 thousandths",
        "2 dozen", "5k", "2 and a half", "3 and one-third", "5 squared",
        "1 000", "12 345", "2^3 or 5", "1,5 or 2",
    ],
)  # fmt: skip
def test_a_part_of_a_number_is_not_read_as_a_number(text):
    result = read_answer(text, 5.0)
    assert (result.status, result.value) == (Status.NON_NUMERIC, None)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\u201118", -18), ("\uff0d18", -18), ("\u221218", -18), ("\u201318", -18), ("negative 18", -18), ("minus 18", -18),
        (r"\$18/\text{hour}", 18), ("18/day", 18), (r"18 \degree", 18), ("18\u00b0", 18), ("$18.00 per hour", 18),
        ("18 km/h", 18),
        ("\uff11\uff0c\uff18\uff10\uff10", 1800), ("1'000", 1000), ("1_000", 1000), ("18\u200b", 18), ("= 18", 18),
        ("x = 18", 18),
        ("x_1 = 18", 18), ("f(3) = 18", 18), ("about 18", 18), ("The answer is 18", 18), ("Janet makes $18 every day.", 18),
        ("Answer: 18", 18), ("**Answer: 18**", 18), ("18**", 18),
        ("18.**", 18), ("18 apples", 18), ("18 apples and some pears", 18), ("(18 apples)", 18),
        ("18 (eighteen)", 18), ("eighteen (18)", 18), ("a dozen, 12", 12), ("0.5 or 1/2", 0.5), ("3 + 4 = 7", 7),
        ("10/3 = 3.33", 3.33),
        (r"100/7 \approx 14", 14), (r"\frac{1}{2} = 50\%", 50), ("25% of 40 = 10", 10), ("2 hours = 120 minutes", 120),
        ("29 species * 7 pairs per species = 203 pairs", 203), ("18 €", 18), ("US$18", 18), ("Rs. 18", 18), ("5 m/s^2", 5),
        ("5 cm\u00b2", 5),
        (r"5\,\text{m}", 5), ("50 percent", 50), ("18 times", 18),
    ],
)  # fmt: skip
def test_surrounding_text_does_not_change_a_number(text, number):
    assert parse_number(text) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "12 or 13", "12, 13", "12 and 13", "18 (not 20)", "x=3, y=4", "18 apples and 2 pears", "1 hour 30 minutes",
        "2 hours (60 minutes)",
        "a dozen, 13", "18 (nineteen)", "x = 3 or x = 4", "3 + 4 = 8", "18 or more", "between 10 and 15", "18 out of 20",
        "(1, 1)",
        "3:4", "3:2", "6{:}30", "18:20", "10 to 15", "Tom has 3 and Ann has 4", "1, 000", "18 => 20", "5 or so", "1. 18",
    ],
)  # fmt: skip
def test_a_text_with_several_numbers_has_no_answer(text):
    assert read_answer(text, 18.0).value is None


@pytest.mark.parametrize(
    "text",
    [
        r"\$1.5M", "2bn", "18 grand", "3 tens", "18K", "18 mil", "18 lakh", "1.5 Mio", "18\u4e07", "18 \u4e07", "18 (million)",
        "Total (in thousands) = 18", "Answer in millions: 18", "half of 18", "twice 18", "square root of 16",
        "half of x is 9", "x^2 = 9",
        "ln(x) = 5", "ln x = 5", r"\ln x = 5", "log(x) = 3", "sqrt(x) = 5", r"\sin\theta = 1", "exp(x)=2", "root x = 5",
        "2x = 10", "x + 2 = 5", "-x = 5", "x squared = 9", "not 18", "18 is not the answer", "18 degrees below zero",
        "18 factorial",
        "18th", "5C2", "18_{10}", "101\u2082", "0b101", "at least 18", "almost 18", "18?", "18..", "18 +", "18 =",
        "5 less than x",
        "2 theta", "5 to the fourth power", "5 added to x", "18 nd", "18^{th}", r"x = \pm 3", "\u201418", "18-",
        "one hundred and 5",
    ],
)  # fmt: skip
def test_a_number_modified_by_its_context_is_refused(text):
    assert read_answer(text, 18.0).value is None


@pytest.mark.parametrize(
    "text",
    [
        "\u00a31\u00b750", "1\u00b75", "0.(3)", "0.1(6)", "1.5(2)", "1 000/4", "1 800/1200", "is.18",
        "18 tys.", "18 Tsd.", "18 mille", "18 mila", "18 tis\u00edc", "18 duizend", "18 ribu", "18 milyon", "18 miljoner",
    ],
)  # fmt: skip
def test_ambiguous_regional_notation_is_refused(text):
    assert read_answer(text, 18.0).value is None


SEPARATORS = (
    "\u00b7\u22c5\u2219\u2022\u2027\u2024\u30fb\u02d9\ufe52\u066b\u066c\u060c\u3001\ufe50\u201a\u2e41\u3002"  # dots and commas
    " \u00a0\u2000\u2002\u2005\u2007\u2009\u200a\u202f\u205f\u3000\u00ad\t\n"  # spaces
    ",'\u2019\u2018\u2032\u02bc\u00b4`\uff07\uff0c_\u200b\u2060"  # what separates thousands in English, Switzerland and code
)


FRAMES = ("{}", "x = {}", "= {}", "The answer is {}", "${}", "-{}", "{} km", "{} = x", "about {}", "({})")


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_separator_of_thousands_is_read_as_such_or_refused(separator):
    """Never a product, a sum or a part of the number."""
    for digits in ("1|000", "12|345", "1|234|567", "1|000|000", "1|500.5"):
        for frame in FRAMES:
            number = parse_number(frame.format(digits.replace("|", separator)))
            assert number is None or abs(number) == float(digits.replace("|", "")), (digits, frame, number)


@pytest.mark.parametrize("frame", ["{}", "x = {}", "Rs. {}", "\u20b9{}", "{} rupees"])
@pytest.mark.parametrize("text", ["1,00,000", "12,34,567", "1,00,00,000.50", "1'00'000", "1_00_000", "1\u00b700\u00b7000"])
def test_indian_groups_are_refused(text, frame):
    assert read_answer(frame.format(text), 18.0).value is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\u0661\u0662\u0663", 123), ("\u06f1\u06f2\u06f3", 123), ("\u0967\u0968\u0969", 123), ("\u0661\u066b\u0665", None),
        ("\u0661\u066c\u0662\u0663\u0664", None), ("1,234\u00b75", None), ("x = 1\u00b750", None), ("1\u00b75\u00b710^3", None),
        ("6\u00b7022\u00b710\u00b2\u00b3", None), ("2\u00b75^2", None), ("1*000", None), (r"4 \cdot 005", None),
        ("12/03", None),
        ("3\u00b710^5", 3e5), ("2 \u00b7 150 = 300", 300), ("2\u00b7150=300", 300), (r"2\cdot5 = 10", 10), ("3\u22c54", 12),
    ],
)  # fmt: skip
def test_digits_dots_and_zeros_of_other_countries(text, number):
    assert parse_number(text) == (None if number is None else pytest.approx(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Rs.18", 18), ("Rs.18.50", 18.5), ("approx.18", 18), ("Rs .5", 0.5), ("x=.5", 0.5), ("-.5", -0.5), ("$.50", 0.5),
        ("3\u00b74=12", 12), ("1.5\u00b710\u00b3", 1500), ("2 \u00b7 9", 18), ("2\u00b73\u00b73", 18), ("9(2)", 18),
        ("1.5(4+8)", 18),
    ],
)  # fmt: skip
def test_a_point_that_is_not_a_decimal_point(text, number):
    assert parse_number(text) == pytest.approx(number, rel=1e-12)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_written_numbers_are_read_back(number):
    assert parse_number(answer_text(number)) == number


@given(st.integers(-(10**15), 10**15))
def test_whole_numbers_with_separators_are_read_back(number):
    assert parse_number(f"{number:,}") == parse_number(f"{number}") == number
    assert answer_text(float(number)) == str(number)


def test_choices_are_written_as_their_letter():
    assert answer_text("b") == "b"


@given(st.text())
def test_reading_never_fails(text):
    for gold in (1.0, "a"):
        result = read_answer(text, gold)
        assert (result.value is not None) == (result.status is Status.OK)
        if isinstance(result.value, float):
            assert math.isfinite(result.value)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "b"),
        ("(b)", "b"),
        ("b ) 30", "b"),
        ("option c.", "c"),
        ("**D**", "d"),
        (r"\text{E}", "e"),
        ("a: 5", "a"),
        ("[A]", "a"),
    ],
)
def test_choices(text, letter):
    assert parse_choice(text) == letter


@pytest.mark.parametrize(
    "text",
    [
        "b or c",
        "(b) or (c)",
        "a, b",
        "b, not c",
        "a ) 38 , b ) 27",
        "A and B",
        "f",
        "(x)",
        "option f",
        "a dog",
        "none",
        "",
        "abc",
        "5",
        "(1)",
    ],
)
def test_not_choices(text):
    assert parse_choice(text) is None


@pytest.mark.parametrize(
    ("text", "gold", "status"),
    [
        ("18", 5.0, Status.OK),
        ("b", 5.0, Status.NON_NUMERIC),
        ("nan", 5.0, Status.NON_FINITE),
        ("-inf", 5.0, Status.NON_FINITE),
        (r"\infty", 5.0, Status.NON_FINITE),
        ("1e999", 5.0, Status.TOO_LARGE),
        ("1e999/1", 5.0, Status.NON_NUMERIC),
        ("18", "c", Status.WRONG_TYPE),
        ("c", "a", Status.OK),
        (None, 5.0, Status.NO_RESULT),
        ("  ", "a", Status.NO_RESULT),
    ],
)
def test_statuses(text, gold, status):
    result = read_answer(text, gold)
    assert result.status is status
    assert result.backend == "text"


def test_huge_digits_do_not_raise():
    assert read_answer("9" * 5000, 1.0).status is Status.TOO_LARGE
    assert read_answer(f"{'9' * 400}/{'9' * 400}", 1.0).status in {Status.TOO_LARGE, Status.NON_NUMERIC, Status.NON_FINITE}


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{1} or \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),
        (r"\boxed{2} and \boxed{3", "2"),
        (r"\boxed{}", ""),
        (r"\boxed {18}", "18"),
        (r"\boxed{18}. I put it in \boxed{} as asked.", "18"),
        (r"\boxed{18} and \boxed{ }", "18"),
        (r"\boxed{3 \boxed{18}}", r"3 \boxed{18}"),
        (r"\boxed{\{18\}}", r"\{18\}"),
        (r"} { \boxed{18}", "18"),
        ("nothing", None),
    ],
)
def test_last_boxed(text, inside):
    assert last_boxed(text) == inside


@pytest.mark.parametrize(
    ("text", "value"),
    [("$1,234.", 1234.0), ("b ) 30", "b"), ("(C)", "c"), ("x = 5", 5.0), ("a dozen, 12", 12.0), ("none", None)],
)
def test_with_an_unknown_kind_choices_take_precedence(text, value):
    assert read_answer(text, None).value == value

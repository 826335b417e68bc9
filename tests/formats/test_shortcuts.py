"""Detection of answers without reasoning: examples, and edge cases of number syntax."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.formats.shortcuts import is_constant_of, letter_from_another_value, stands_in

PROGRAM = 'def solution():\n    """{question}"""\n    boxes = 4\n    each = 12\n    result = {result}\n    return result'
MATHQA = "a shopkeeper sold an article .\na ) 38 , b ) 27.675 , c ) 1,300 , d ) data inadequate , e ) none of these"
OTHERS = "how much (a ) is it ?\na ) 1 / 2 , b ) − 120 , c ) rs . 4 , d ) 0.05 , e ) 7"  # noqa: RUF001


@pytest.mark.parametrize(
    ("answer", "text", "found"),
    [
        (12.0, "A box holds 12 pencils.", True),
        (1200.0, "She has 1,200 pencils, he 3.", True),
        (3.0, "1,200 pencils cost $3.00 in all", True),
        (2.0, "A box of 12, at 1.2", False),
        (-5.0, "It was -5 degrees", True),
        (0.5, "half of it is .5", True),
        (7.0, "seven", False),
    ],
)
def test_numbers_in_a_question(answer: float, text: str, found: bool) -> None:
    assert stands_in(answer, text) == found


def test_the_question_in_the_docstring_is_not_the_programs_own() -> None:
    program = PROGRAM.format(question="48 pencils?", result="boxes * each")
    assert not is_constant_of(48.0, program)
    assert is_constant_of(48.0, PROGRAM.format(question="How many?", result="48"))
    assert is_constant_of(12.0, program)


@pytest.mark.parametrize(
    ("letter", "reasoning", "verdict"),
    [
        ("a", "The profit is 131.1 / 0.95 - 100 = 38.\nTherefore, the answer is: a", False),
        ("a", "The profit is 131.1 - 95 = 36.1\nTherefore, the answer is: a", True),
        ("b", "so it comes to 27.68", False),  # rounded
        ("c", "that is 1300 in all", False),
        ("e", "it is 12", None),
        ("a", "nobody knows. Therefore, the answer is: 38", None),
    ],
)
def test_a_correct_letter_after_a_wrong_value(letter: str, reasoning: str, verdict: bool | None) -> None:
    assert letter_from_another_value(letter, MATHQA, reasoning) is verdict


@pytest.mark.parametrize(
    ("letter", "reasoning", "verdict"),
    [
        ("a", "3 of 6 are half = 0.5", False),
        ("a", "3 of 6 = 3 / 6", False),
        ("a", "it is 1", True),
        ("b", "so x = -120", False),
        ("b", "so x = 120", True),
        ("c", "he pays 2 * 2 = 4 rupees", False),
        ("d", "2 / 40 = 0.052", False),  # an option includes values that round to it
        ("d", "2 / 40 = 0.07", True),
    ],
)
def test_options_are_read_as_prepare_reads_them(letter: str, reasoning: str, verdict: bool) -> None:
    assert letter_from_another_value(letter, OTHERS, reasoning) is verdict


@given(st.text(alphabet="ab1,)( .-e5_'\"\n"), st.floats(-1e6, 1e6))
def test_no_text_raises_an_error(text: str, answer: float) -> None:
    stands_in(answer, text)
    is_constant_of(answer, text)
    letter_from_another_value("a", text, text)

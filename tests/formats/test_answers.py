"""Answer equality: hand-computed cases and its symmetries."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.formats.answers import answers_equal, is_answer_to, is_correct, most_voted, votes
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason


@pytest.mark.parametrize(
    ("value", "gold", "equal"),
    [
        (203.0, 203.0, True),
        (203, 203.0, True),
        (203.009, 203.0, True),
        (203.011, 203.0, False),
        (-1.0, 1.0, False),
        (0.125, 0.0, False),
        ("b", "b", True),
        ("c", "b", False),
        ("B", "b", False),
        (1.0, "a", False),
        ("a", 1.0, False),
        ("none", "n", False),
        ("f", "f", False),  # no choice that a dataset has
        (None, 1.0, False),
        (None, "a", False),
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
        (True, 1.0, False),
    ],
)
def test_equality(value, gold, equal):
    assert answers_equal(value, gold) is equal


def test_the_tolerance_itself_still_counts():
    assert answers_equal(1.5, 1.0, tolerance=0.5)
    assert not answers_equal(math.nextafter(1.5, 2), 1.0, tolerance=0.5)


@given(st.floats(), st.floats(), st.floats(0, 10))
def test_numbers_are_equal_exactly_when_finite_and_near(value, gold, tolerance):
    near = math.isfinite(value) and abs(value - gold) <= tolerance
    assert answers_equal(value, gold, tolerance) == near


@given(st.one_of(st.none(), st.floats(), st.text(max_size=2)), st.one_of(st.floats(allow_nan=False), st.sampled_from("abcde")))
def test_only_an_answer_can_be_equal(value, gold):
    if answers_equal(value, gold):
        assert is_answer_to(value, gold)


@pytest.mark.parametrize(
    ("status", "value", "correct"), [(Status.OK, 3.0, True), (Status.OK, 4.0, False), (Status.TIMEOUT, None, False)]
)
def test_a_sample_is_correct_by_its_result(status, value, correct):
    completion = Completion("q", 0, (5, 2), (-0.1, -0.2), StopReason.EOS)
    sample = Sample(Problem("q", "1 + 2?", 3.0), completion, "", ExecutionResult(status, value))
    assert is_correct(sample) is correct


@pytest.mark.parametrize(
    ("value", "valid"), [(3.0, True), (3, True), ("b", True), ("none", False), (math.nan, False), (True, False), (None, False)]
)
def test_where_nobody_knows_the_answer_either_kind_is_one_and_none_is_right(value, valid):
    assert is_answer_to(value, None) is valid
    assert not answers_equal(value, None)


@pytest.mark.parametrize(
    ("answers", "groups"),
    [
        ([], []),
        ([None, None], []),
        ([5.0, 7.0, None, 7.0], [[1, 3], [0]]),
        ([5.0, 7.0, 7.0, 5.0], [[0, 3], [1, 2]]),  # a tie: 5 was there first
        ([1.0, 2.0, 1 / 3, 0.33333334], [[2, 3], [0], [1]]),  # one answer to 6 significant digits
        (["b", 2.0, "b"], [[0, 2], [1]]),
        ([0.0, -0.0, 3.0], [[0, 1], [2]]),
    ],
)
def test_votes(answers, groups):
    assert votes(answers) == groups
    assert most_voted(answers) == (groups[0][0] if groups else None)

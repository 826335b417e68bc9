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
        ("f", "f", False),  # not a choice of any dataset
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
def test_only_answers_can_be_equal(value, gold):
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
def test_without_a_reference_answer_both_kinds_count_and_none_is_correct(value, valid):
    assert is_answer_to(value, None) is valid
    assert not answers_equal(value, None)


@pytest.mark.parametrize(
    ("answers", "groups"),
    [
        ([], []),
        ([None, None], []),
        ([5.0, 7.0, None, 7.0], [[1, 3], [0]]),
        ([5.0, 7.0, 7.0, 5.0], [[0, 3], [1, 2]]),  # a tie: 5 was sampled first
        ([1.0, 2.0, 1 / 3, 0.33333334], [[2, 3], [0], [1]]),  # one answer to 6 significant digits
        (["b", 2.0, "b"], [[0, 2], [1]]),
        ([0.0, -0.0, 3.0], [[0, 1], [2]]),
        ([1234567.0, 1234568.0, 1234568.0], [[1, 2], [0]]),  # two integers never share a vote
        ([3.004, 3.0, 3.0], [[1, 0, 2]]),  # the representative comes first
        ([3.0, 3.004, 5.0], [[0, 1], [2]]),
        ([2.992, 3.008, 3.0], [[2, 0, 1]]),
        ([2.992, 3.008], [[0], [1]]),  # both match 3, but not each other
        ([1e308, -1e308, math.inf, math.nan], [[0], [1]]),
    ],
)
def test_votes(answers, groups):
    assert votes(answers) == groups
    assert most_voted(answers) == (groups[0][0] if groups else None)


NUMBERS = st.one_of(
    st.integers(-3, 3).map(float),
    st.integers(2950, 3050).map(lambda thousandths: thousandths / 1000),
    st.floats(allow_nan=False, allow_infinity=False),
)
SAMPLED = st.lists(st.one_of(st.none(), NUMBERS, st.sampled_from("abcde")), max_size=14)


def values_of(answers, groups):
    """Return each group's representative and sorted members."""
    return sorted((str(answers[group[0]] + 0.0), sorted(answers[i] for i in group)) for group in groups)


@given(st.lists(NUMBERS, max_size=14).flatmap(lambda answers: st.tuples(st.just(answers), st.permutations(answers))))
def test_groups_and_representatives_do_not_depend_on_the_order(both):
    answers, permuted = both
    assert values_of(answers, votes(answers)) == values_of(permuted, votes(permuted))


@given(SAMPLED)
def test_every_answer_has_one_vote_with_a_representative_that_it_equals(answers):
    groups = votes(answers)
    assert sorted(index for group in groups for index in group) == [i for i, answer in enumerate(answers) if answer is not None]
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    for group in groups:
        assert all(answers_equal(answers[index], answers[group[0]]) for index in group)


@given(st.lists(st.integers(-(2**53), 2**53).map(float), max_size=14))
def test_two_integers_never_share_a_vote(answers):
    for group in votes(answers):
        assert len({answers[index] for index in group}) == 1


@given(st.lists(NUMBERS, min_size=1, max_size=14), st.data())
def test_a_vote_with_the_reference_answer_is_correct(answers, data):
    gold = data.draw(st.sampled_from(answers))
    group = next(group for group in votes(answers) if answers.index(gold) in group)
    assert answers_equal(answers[group[0]], gold)


@given(st.integers(-1000, 1000), st.lists(st.integers(-9, 9), max_size=14))
def test_all_correct_answers_share_a_vote_around_a_gold_answer_that_leads(gold, thousandths):
    answers = [float(gold)] * (len(thousandths) + 1) + [gold + offset / 1000 for offset in thousandths]
    assert len(votes(answers)) == 1
    assert answers[votes(answers)[0][0]] == gold

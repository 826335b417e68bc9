from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.data.splits import hold_out, question_key, without
from reft_pl.errors import UserError
from reft_pl.types import Problem


def problems(*questions: str) -> list[Problem]:
    return [Problem(f"p_{i}", question, 1.0) for i, question in enumerate(questions)]


def test_keys_ignore_spacing_case_and_quotes():
    assert question_key("Bob\u2019s car .") == question_key("bob's  CAR.") != question_key("bob's cars.")
    assert question_key("10.5 apples") != question_key("105 apples")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2\u00b2 + 1?", "What is 22 + 1?"),
        ("3 4-packs", "34-packs"),
        ("1 2", "12"),
        ("1\u00a02", "12"),
        ("1 2 3", "12 3"),
        ("x\u2081 2", "x12"),
        ("10\u00b2\u00b3", "10\u00b23"),
        ("2\u00bd", "21/2"),
        ("1 1/2", "11/2"),
        ("\u24602", "12"),
        ("at 10. 5 apples", "at 10.5 apples"),
        ("1, 2", "1,2"),
        ("5 m\u00b2", "5 m2"),
    ],
)
def test_numbers_that_differ_make_other_questions(one: str, other: str):
    assert question_key(one) != question_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2\u00b2", "2^2"),
        ("10\u00b2\u00b3", "10^23"),
        ("2\u00bd", "2 1/2"),
        ("\uff12\uff13", "23"),
        ("1\u00a0 2", "1\n2"),
        ("3 km", "3km"),
        ("$ 5", "$5"),
        ("5 %", "5%"),
        ("1 / 2", "1/2"),
        ("5 \u33a1", "5 m\u00b2"),
    ],
)
def test_the_same_numbers_in_another_notation_make_the_same_question(one: str, other: str):
    assert question_key(one) == question_key(other)


@given(st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=30), st.integers(0, 2), st.integers(0, 9))
def test_hold_out_splits_questions(questions, n, seed):
    all_problems = problems(*questions)
    if n >= len(set(questions)):
        return
    train, held = hold_out(all_problems, n, seed)
    assert len(held) == n
    assert not {p.question for p in train} & {p.question for p in held}
    assert {p.question for p in train} | {p.question for p in held} == set(questions)
    # The same questions are held out in any file order.
    again = hold_out(list(reversed(all_problems)), n, seed)[1]
    assert {p.question for p in again} == {p.question for p in held}


def test_hold_out_depends_on_the_seed():
    all_problems = problems(*map(str, range(100)))
    assert hold_out(all_problems, 10, 1) != hold_out(all_problems, 10, 2)


def test_hold_out_leaves_training_questions():
    with pytest.raises(UserError, match="holdout=2 leaves nothing to train on: there are only 2 distinct"):
        hold_out(problems("a", "b", "A"), 2, 0)


def test_without():
    assert [p.id for p in without(problems("a?", "b?", "A ?"), problems("a ?"))] == ["p_1"]

"""Which annotated solutions an optimizer step takes, and with which weight."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.rollout.annotated import AnnotatedQuestions, annotated_weight
from reft_pl.types import Problem

BATCH = [Problem(f"q{i}", f"What is {i}?", float(i), None if i in (1, 4, 6) else f"return {i}") for i in range(8)]
"""Eight questions, five of them with a solution: 0, 2, 3, 5 and 7."""


def one_rank(size: int | None, batch: list[Problem] = BATCH, seed: int = 1, step: int = 0) -> AnnotatedQuestions:
    return AnnotatedQuestions(batch, range(len(batch)), lambda mine: [mine], size, seed, step)


def taken(questions: AnnotatedQuestions, index: int, epoch: int = 0) -> list[str]:
    return [problem.id for problem in questions.minibatch(epoch, index)]


def test_the_weight_is_constant_or_falls_to_zero() -> None:
    assert [annotated_weight(0.5, "constant", step, 4) for step in (0, 3, 9)] == [0.5, 0.5, 0.5]
    assert [annotated_weight(2.0, "linear", step, 4) for step in range(6)] == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]


def test_mini_batches_take_the_questions_in_turn() -> None:
    """Two of five each: the third mini-batch takes the last one and the first one again."""
    first, second, third, fourth, fifth = (taken(one_rank(2), index) for index in range(5))
    (last, again), order = third, first + second + third[:1]
    assert sorted(order) == ["q0", "q2", "q3", "q5", "q7"]
    assert (last, again) == (order[4], order[0])
    assert (fourth, fifth) == (order[1:3], order[3:5])


@pytest.mark.parametrize("size", [5, 64, None])
def test_a_mini_batch_takes_no_question_twice(size: int | None) -> None:
    for index in range(3):
        assert sorted(taken(one_rank(size), index)) == ["q0", "q2", "q3", "q5", "q7"]


def test_without_a_solution_there_is_nothing_to_take() -> None:
    for batch in ([], [BATCH[1], BATCH[4]]):
        for size in (None, 3):
            assert taken(one_rank(size, batch), 1) == []


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 1}, {"epoch": 1}])
def test_every_seed_step_and_pass_has_another_order(other: dict[str, int]) -> None:
    batch = [Problem(f"q{i}", "?", 1.0, "return 1") for i in range(64)]

    def order(epoch: int = 0, **changes: int) -> list[str]:
        return taken(one_rank(16, batch, **changes), 0, epoch)

    assert order() == order() != order(**other)


@given(n=st.integers(0, 20), ranks=st.integers(1, 5), size=st.integers(1, 8), index=st.integers(0, 6), bare=st.integers(1, 4))
def test_ranks_together_take_what_one_takes(n: int, ranks: int, size: int, index: int, bare: int) -> None:
    batch = [Problem(f"q{i}", "?", 1.0, None if i % bare == 1 else "return 1") for i in range(n)]
    shards = [batch[rank::ranks] for rank in range(ranks)]
    places = [range(rank, n, ranks) for rank in range(ranks)]
    annotated = [[i for i in mine if batch[i].solution] for mine in places]

    def gather(_: Any) -> list[Any]:
        return annotated

    together: Counter[str] = Counter()
    for mine, at in zip(shards, places, strict=True):
        questions = AnnotatedQuestions(mine, at, gather, size, seed=1, step=2)
        together.update(taken(questions, index, epoch=3))
    assert together == Counter(taken(one_rank(size, batch, step=2), index, epoch=3))
    assert len(together) == min(size, sum(map(len, annotated)))

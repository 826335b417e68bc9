"""Filters that decide which samples an update uses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

import pytest
import torch

from reft_pl.rollout.filtering import (
    GlobalBatch,
    judged,
    with_overlong_punishment,
    with_varied_groups,
    without_truncated,
    without_unjudged,
)
from reft_pl.types import Completion, ExecutionResult, Problem, Rollout, Sample, Status, StopReason, TokenBatch

STATUSES = tuple(Status)


@pytest.fixture
def rollout() -> Rollout:
    """One sample per status, the first truncated at the length limit; three actions each."""
    samples = tuple(
        Sample(
            Problem("q", "?", 1.0),
            Completion("q", 0, (1, 2, 3), (0.0,) * 3, StopReason.EOS if row else StopReason.LENGTH),
            "text",
            ExecutionResult(status, 1.0 if status is Status.OK else None),
        )
        for row, status in enumerate(STATUSES)
    )
    mask = torch.tensor([[True, True, True, False]]).repeat(len(samples), 1)
    tokens = TokenBatch(torch.ones_like(mask, dtype=torch.int64), torch.ones_like(mask), mask)
    return Rollout(samples, tokens, torch.zeros(len(samples)))


def learned(rollout: Rollout) -> list[bool]:
    return [bool(row) for row in rollout.tokens.action_mask.any(dim=1)]


def test_unsupported_programs_are_left_out(rollout: Rollout) -> None:
    expected = [status not in (Status.UNSUPPORTED, Status.WORKER_DIED) for status in STATUSES]
    assert learned(without_unjudged(rollout)) == expected
    assert without_unjudged(rollout).samples == rollout.samples


def test_truncated_completions_are_left_out(rollout: Rollout) -> None:
    assert learned(without_truncated(rollout)) == [False] + [True] * (len(STATUSES) - 1)


def test_samples_without_a_reward_are_left_out_and_count_in_no_baseline(rollout: Rollout) -> None:
    first, second, *others = rollout.samples
    partly = replace(rollout, samples=(first, replace(second, rewarded=False), *others))
    expected = learned(without_unjudged(rollout))
    expected[1] = False
    assert learned(without_unjudged(partly)) == judged(partly).tolist() == expected


def test_the_status_determines_what_was_judged(rollout: Rollout) -> None:
    assert judged(rollout).tolist() == learned(without_unjudged(rollout))


def groups(outcomes: list[list[float]], statuses: list[list[Status]] | None = None, length: int = 3) -> Rollout:
    """One list per question, one number per sample; prompts of two tokens."""
    samples = tuple(
        Sample(
            Problem(f"q{i}", "?", 1.0),
            Completion(f"q{i}", j, (1,) * length, (0.0,) * length, StopReason.EOS),
            "text",
            ExecutionResult(statuses[i][j] if statuses else Status.EXCEPTION),
        )
        for i, of_question in enumerate(outcomes)
        for j in range(len(of_question))
    )
    real = torch.ones(len(samples), 2 + length, dtype=torch.bool)
    actions = real.clone()
    actions[:, 0] = actions[:, -1] = False
    return Rollout(samples, TokenBatch(real.long(), real, actions), torch.tensor(outcomes, dtype=torch.float32).flatten())


def kept(rollout: Rollout) -> list[str]:
    return list(dict.fromkeys(sample.problem.id for sample in rollout.samples))


def test_an_unjudged_outcome_does_not_make_a_group_varied() -> None:
    """Correct, correct, and a 0 because a worker died: the judged outcomes are equal."""
    ok, died = Status.OK, Status.WORKER_DIED
    rollout = groups([[1, 1, 0], [1, 0, 0], [0, 1, 0]], [[ok, ok, died], [ok, ok, died], [ok, died, died]])
    filtered = with_varied_groups(rollout, 3, lambda problems, attempt: None, lambda problems, attempt: rollout)
    assert kept(filtered) == ["q1"]
    assert filtered.left_out is not None
    assert kept(filtered.left_out) == ["q0", "q2"]


def test_groups_are_refilled_until_no_question_is_left() -> None:
    asked: list[tuple[list[str], int]] = []
    drawn = [[Problem("n0", "?", 1.0)], [], None]

    def refill(problems: Sequence[Problem], attempt: int) -> list[Problem] | None:
        asked.append(([problem.id for problem in problems], attempt))
        return drawn[attempt - 1]

    def sample(problems: Sequence[Problem], attempt: int) -> Rollout:
        assert problems == drawn[0], "a rank with nothing to replace samples nothing"
        return groups([[0, 0]], length=7)

    filtered = with_varied_groups(groups([[1, 0], [0, 0]]), 2, refill, sample)
    assert asked == [(["q1"], 1), (["q0"], 2), ([], 3)]
    assert kept(filtered) == ["q0"]
    assert len(filtered.sampled) == 6


@pytest.mark.parametrize(("length", "punishment"), [(4, 0.0), (8, 0.0), (9, -0.5), (10, -1.0)])
def test_the_overlong_penalty_grows_towards_the_length_limit(length: int, punishment: float) -> None:
    """Twelve tokens minus two of the prompt leave ten; the last two are the buffer."""
    rollout = groups([[1, 0]], length=length)
    punished = with_overlong_punishment(rollout, 0.2, max_tokens=12)
    assert punished.outcome.tolist() == pytest.approx([1 + punishment, punishment])
    assert with_overlong_punishment(rollout, 0.0, max_tokens=12) is rollout
    nothing = groups([])
    assert with_overlong_punishment(nothing, 0.2, max_tokens=12) is nothing


POOL = [Problem(f"q{i}", f"{i}?", float(i)) for i in range(20)]
BATCH = POOL[:8]


def one_rank(**changes: Any) -> GlobalBatch:
    settings: dict[str, Any] = {"gather": lambda mine: [mine], "pool": POOL, "seed": 1, "step": 3}
    return GlobalBatch(BATCH, range(8), **settings | changes)


def ids(problems: list[Problem] | None) -> list[str]:
    assert problems is not None
    return [problem.id for problem in problems]


def test_other_questions_replace_groups() -> None:
    batch = one_rank()
    fresh = ids(batch.refill([BATCH[5], BATCH[2]]))
    assert len(fresh) == 2
    assert not set(fresh) & {problem.id for problem in BATCH}
    assert [batch.place_of[name] for name in fresh] == [5, 2]


def test_no_question_is_drawn_twice() -> None:
    batch = one_rank()
    met = [problem.id for problem in BATCH]
    free = BATCH
    sizes = []
    while (others := batch.refill(free)) is not None:
        met += ids(others)
        sizes.append(len(others))
        free = others
    assert sizes == [8, 4], "out of twelve unused questions"
    assert sorted(met) == sorted(problem.id for problem in POOL)


def test_nothing_is_drawn_for_a_full_batch() -> None:
    assert one_rank().refill([]) is None
    assert one_rank(pool=BATCH).refill(BATCH) is None


def test_each_step_and_seed_has_a_different_order() -> None:
    first = ids(one_rank().refill(BATCH))
    assert first == ids(one_rank().refill(BATCH)), "a resumed run selects the same questions"
    assert first != ids(one_rank(step=4).refill(BATCH))
    assert first != ids(one_rank(seed=2).refill(BATCH))


def test_several_ranks_draw_what_one_does() -> None:
    """Three ranks: the second has nothing to replace in the second attempt, the third never has."""
    free = [[BATCH[0], BATCH[4], BATCH[7]], [BATCH[4]]]
    alone = one_rank()
    expected = {}
    for problems in free:
        others = alone.refill(problems)
        assert others is not None
        expected |= {other.id: alone.place_of[other.id] for other in others}
    everyone: list[Any] = [None] * 3
    barrier = Barrier(3)

    def gather_of(rank: int) -> Callable[[Any], list[Any]]:
        def gather(mine: Any) -> list[Any]:
            everyone[rank] = mine
            barrier.wait(10)
            seen = list(everyone)
            barrier.wait(10)
            return seen

        return gather

    found: dict[str, int] = {}

    def run(rank: int) -> None:
        batch = GlobalBatch(BATCH[rank::3], range(rank, 8, 3), gather_of(rank), POOL, 1, 3)
        for problems in free:
            others = batch.refill([problem for problem in problems if problem in BATCH[rank::3]])
            assert others is not None, "no rank stops while another continues"
            found.update({other.id: batch.place_of[other.id] for other in others})

    threads = [Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == expected

"""Other questions in the places of those that are left out: which, for whom, and on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

from reft_pl.rollout.global_batch import GlobalBatch
from reft_pl.types import Problem

POOL = [Problem(f"q{i}", f"{i}?", float(i)) for i in range(20)]
BATCH = POOL[:8]


def one_rank(**changes: Any) -> GlobalBatch:
    settings: dict[str, Any] = {"gather": lambda mine: [mine], "pool": POOL, "seed": 1, "step": 3}
    return GlobalBatch(BATCH, range(8), **settings | changes)


def ids(problems: list[Problem] | None) -> list[str]:
    assert problems is not None
    return [problem.id for problem in problems]


def test_other_questions_take_the_places() -> None:
    batch = one_rank()
    fresh = ids(batch.refill([BATCH[5], BATCH[2]]))
    assert len(fresh) == 2
    assert not set(fresh) & {problem.id for problem in BATCH}
    assert [batch.place_of[name] for name in fresh] == [5, 2]


def test_no_question_comes_twice_and_then_there_are_none() -> None:
    batch = one_rank()
    met = [problem.id for problem in BATCH]
    free = BATCH
    sizes = []
    while (others := batch.refill(free)) is not None:
        met += ids(others)
        sizes.append(len(others))
        free = others
    assert sizes == [8, 4], "of twelve others"
    assert sorted(met) == sorted(problem.id for problem in POOL)


def test_where_no_place_is_free_nothing_is_drawn() -> None:
    assert one_rank().refill([]) is None
    assert one_rank(pool=BATCH).refill(BATCH) is None


def test_each_step_and_seed_has_an_order_of_its_own() -> None:
    first = ids(one_rank().refill(BATCH))
    assert first == ids(one_rank().refill(BATCH)), "a resumed run draws the same"
    assert first != ids(one_rank(step=4).refill(BATCH))
    assert first != ids(one_rank(seed=2).refill(BATCH))


def test_ranks_find_what_one_finds() -> None:
    """Three ranks: the second has no free place in the second attempt, the third none at all."""
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
            assert others is not None, "no rank leaves while another goes on"
            found.update({other.id: batch.place_of[other.id] for other in others})

    threads = [Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == expected

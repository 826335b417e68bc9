import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.rollout.minibatches import minibatches, n_minibatches, places_over_ranks


def test_parts_hold_at_most_their_size() -> None:
    assert [n_minibatches(n, size) for n, size in ((8, None), (8, 8), (9, 4), (3, 10))] == [1, 1, 3, 1]


@given(
    kept=st.sets(st.integers(0, 15)),
    ranks=st.integers(1, 5),
    size=st.integers(1, 3),
    parts=st.integers(1, 6),
    epoch=st.integers(0, 3),
)
def test_the_partition_is_the_same_on_any_number_of_ranks(
    kept: set[int], ranks: int, size: int, parts: int, epoch: int
) -> None:
    """16 questions, some left out, distributed over ranks: together the ranks form the mini-batches of a single rank."""
    n = len(kept) * size
    everyones = [[place for place in kept if place % ranks == rank] for rank in range(ranks)]
    together: list[set[int]] = [set() for _ in range(parts)]
    for mine in everyones:
        places = places_over_ranks(mine, everyones, size)
        for part, rows in zip(together, minibatches(places, n, parts, seed=1, step=2, epoch=epoch, size=size), strict=True):
            part |= set(places[rows].tolist())
    alone = minibatches(torch.arange(n), n, parts, seed=1, step=2, epoch=epoch, size=size)
    assert together == [set(rows.tolist()) for rows in alone]
    assert sorted(row for rows in alone for row in rows.tolist()) == list(range(n))


def test_the_samples_of_a_question_stay_together() -> None:
    parts = minibatches(torch.arange(24), 24, 3, seed=1, step=0, epoch=0, size=4)
    assert sorted(row for rows in parts for row in rows.tolist()) == list(range(24))
    for rows in parts:
        assert [row % 4 for row in rows.tolist()] == [0, 1, 2, 3] * 2
    assert parts[0].tolist() != list(range(8)), "questions are drawn at random"


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 1}, {"epoch": 1}])
def test_the_partition_differs_for_every_seed_step_and_pass(other: dict[str, int]) -> None:
    def drawn(**changes: int) -> list[list[int]]:
        parts = minibatches(torch.arange(64), 64, 4, **({"seed": 1, "step": 0, "epoch": 0} | changes))
        return [sorted(rows.tolist()) for rows in parts]

    assert drawn() == drawn() != drawn(**other)

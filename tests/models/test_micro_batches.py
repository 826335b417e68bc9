"""Micro-batches of bounded size."""

from reft_pl.models.micro_batches import by_size


def test_single_rows_are_bounded_and_complete() -> None:
    lengths = (3, 9, 1, 4, 4)
    micro_batches = list(by_size([(1, length) for length in lengths], 9))
    assert micro_batches == [[1], [3, 4], [0, 2]]
    assert all(len(rows) * max(lengths[row] for row in rows) <= 9 for rows in micro_batches)


def test_groups_stay_together() -> None:
    # (rows, longest row): the second group exceeds the bound and is alone.
    assert list(by_size([(2, 4), (5, 5), (1, 2), (3, 1), (1, 4)], 12)) == [[1], [0, 4], [2, 3]]
    assert list(by_size([], 12)) == []

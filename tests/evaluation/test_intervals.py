import math

import pytest

from reft_pl.evaluation.intervals import Z95, mean_interval, paired_difference, wilson_interval


def test_wilson_interval_of_the_textbook_example() -> None:
    low, high = wilson_interval(8, 10)
    assert (low, high) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_wilson_interval_never_leaves_the_unit_interval_and_holds_the_estimate() -> None:
    for total in (1, 7, 300):
        for correct in {0, total // 2, total}:
            low, high = wilson_interval(correct, total)
            assert 0 <= low <= correct / total <= high <= 1
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_paired_interval_counts_disagreements_alone() -> None:
    before = [True] * 50 + [False] * 50
    after = [True] * 60 + [False] * 40  # ten questions gained, none lost
    mean, low, high = paired_difference(before, after)
    half = Z95 * math.sqrt((10 * 0.9**2 + 90 * 0.1**2) / 99 / 100)
    assert (mean, low, high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))


def test_no_difference_has_no_width() -> None:
    assert paired_difference([1, 0, 0.5], [1, 0, 0.5]) == (0, 0, 0)


def test_intervals_refuse_what_they_cannot_speak_of() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])

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


@pytest.mark.parametrize(("right", "questions"), [(0, 200), (3, 200), (9, 16), (16, 16), (1, 1)])
def test_outcomes_of_zero_and_one_have_wilsons_interval(right: int, questions: int) -> None:
    values = [1.0] * right + [0.0] * (questions - right)
    assert mean_interval(values) == pytest.approx((right / questions, *wilson_interval(right, questions)), abs=1e-12)


def test_three_of_two_hundred_by_hand() -> None:
    # p = 0.015, z^2 = 3.8415: centre (0.015 + 3.8415 / 400) / (1 + 3.8415 / 200) = 0.024140,
    # half (1.95996 / 1.0192073) sqrt(0.015 * 0.985 / 200 + 3.8415 / 160000) = 0.019026
    _, low, high = mean_interval([1.0] * 3 + [0.0] * 197)
    assert (low, high) == pytest.approx((0.005114, 0.043166), abs=1e-6)
    # All 200 right: low = 1 / (1 + z^2 / 200)
    assert mean_interval([1.0] * 200) == pytest.approx((1.0, 0.981154, 1.0), abs=1e-6)


def test_fractions_count_as_more_questions() -> None:
    # Half of the questions at 1/4, half at 3/4: p = 1/2, scatter 100/16, so n_eff = 100 (25 + 1/4) / (6.25 + 1/4) = 388.4615
    mean, low, high = mean_interval([0.25] * 50 + [0.75] * 50)
    half = Z95 / (1 + Z95**2 / 388.4615) * math.sqrt(0.25 / 388.4615 + Z95**2 / (4 * 388.4615**2))
    assert (mean, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)
    normal = Z95 * math.sqrt(100 / 16 / 99 / 100)
    assert half == pytest.approx(normal, rel=0.02), "many questions in the middle: what the normal interval says"


def test_a_tiny_fraction_among_zeros_does_not_count_as_many_questions() -> None:
    _, _, nothing = mean_interval([0.0] * 200)
    mean, low, high = mean_interval([0.0] * 199 + [1 / 16])
    assert 0 < low <= mean < 0.8 * nothing < high <= 1


def test_intervals_of_fractions_stay_within_bounds() -> None:
    for values in ([0.5], [1 - 2**-53] * 3, [0.1] * 7 + [1.0] * 3, [1e-9, 0.0], [0.3] * 10):
        mean, low, high = mean_interval(values)
        assert 0 <= low <= mean <= high <= 1
        assert high - low > 0.01


def test_a_paired_interval_counts_only_disagreements() -> None:
    before = [True] * 50 + [False] * 50
    after = [True] * 60 + [False] * 40  # ten questions gained, none lost
    mean, low, high = paired_difference(before, after)
    half = Z95 * math.sqrt((10 * 0.9**2 + 90 * 0.1**2) / 99 / 100)
    assert (mean, low, high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))


def test_no_difference_has_no_width() -> None:
    assert paired_difference([1, 0, 0.5], [1, 0, 0.5]) == (0, 0, 0)


def test_intervals_refuse_invalid_counts() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])

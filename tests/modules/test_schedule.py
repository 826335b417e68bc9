import pytest

from reft_pl.modules.schedule import Schedule


def test_linear_warmup_and_decay_by_hand() -> None:
    schedule = Schedule("linear", warmup=0.2)
    assert [schedule.factor(step, 10) for step in (0, 1, 2, 6, 9, 10, 11)] == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 0.125, 0, 0])


def test_constant_is_constant_after_its_warmup() -> None:
    assert {Schedule().factor(step, 5) for step in range(20)} == {1.0}
    assert [Schedule(warmup=0.5).factor(step, 4) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


def test_no_step_is_wasted_at_rate_zero_before_the_end() -> None:
    for warmup in (0.0, 0.1, 1.0):
        assert all(Schedule("linear", warmup).factor(step, 7) > 0 for step in range(7))

from collections.abc import Callable
from typing import Any

from reft_pl.evaluation.report.scalars import Curve, joined, read_curves, thinned


def test_a_resumed_run_is_one_curve() -> None:
    before, after = [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)], [(2, 20.0), (3, 30.0), (4, 40.0)]
    assert joined(before + after) == Curve([0, 1, 2, 3, 4], [0.0, 0.1, 20.0, 30.0, 40.0])


def test_a_restarted_run_replaces_the_old_one() -> None:
    assert joined([(0, 1.0), (5, 2.0), (0, 3.0), (2, 4.0)]) == Curve([0, 2], [3.0, 4.0])


def test_thinned_keeps_both_ends() -> None:
    curve = Curve(list(range(11)), [float(i) for i in range(11)])
    assert thinned(curve, limit=11) == curve
    assert thinned(curve, limit=3) == Curve([0, 5, 10], [0.0, 5.0, 10.0])


def test_the_files_of_two_starts(new_run: Callable[[str], Any]) -> None:
    run = new_run("ppo")
    run.logged(rollout__reward={0: 0.5, 1: 0.25})
    run.logged(rollout__reward={1: 0.75}, val__top1={1: 1.0})
    assert read_curves(run.folder) == {"rollout/reward": Curve([0, 1], [0.5, 0.75]), "val/top1": Curve([1], [1.0])}
    assert read_curves(run.folder.parent) == {}

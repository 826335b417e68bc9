import pytest

from reft_pl.evaluation.top1 import Top1


def test_accuracy_over_batches() -> None:
    metric = Top1()
    metric.update([True, False, False])
    metric.update([True])
    assert float(metric.compute()) == 0.5
    summary = metric.summary()
    assert summary["top1"] == 0.5
    assert summary["n"] == 4
    assert summary["interval95"] == pytest.approx([0.1500, 0.8500], abs=1e-4)


def test_an_empty_metric_is_zero_of_zero() -> None:
    assert float(Top1().compute()) == 0
    assert Top1().summary() == {"top1": 0.0, "n": 0, "interval95": [0.0, 1.0]}

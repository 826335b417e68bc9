from typing import Any

import pytest

from reft_pl.evaluation.intervals import wilson_interval
from reft_pl.evaluation.report.accuracy_charts import accuracy_against_k
from reft_pl.evaluation.report.rankings import find_rankings
from reft_pl.evaluation.report.runs import read_runs
from reft_pl.evaluation.report.training_charts import learning_curves, status_charts


def test_each_figure_has_a_chart_with_a_line_per_run(sft: Any, reft: Any) -> None:
    sft.logged(val__top1={10: 0.2, 20: 0.4}, train__loss={10: 3.0})
    charts = {chart.title: chart for chart in learning_curves(read_runs([sft.folder, reft.folder]))}
    assert list(charts) == ["Validation: greedy Top-1", "Training samples: mean reward", "Supervised loss"]
    lines = charts["Validation: greedy Top-1"].data
    assert [line["name"] for line in lines] == ["sft", "re&lt;i&gt;ft &amp; co"], "plotly must not take it for markup"
    assert lines[0]["x"] == [10, 20]
    assert lines[0]["y"] == pytest.approx([0.2, 0.4])
    reward = charts["Training samples: mean reward"].data[0]
    assert reward["y"][2] is None, "NaN is a gap"
    assert reward["line"]["color"] == lines[1]["line"]["color"], "a run has one colour in all charts"


def test_statuses_that_occurred_are_stacked_areas(sft: Any, reft: Any) -> None:
    (chart,) = status_charts(read_runs([sft.folder, reft.folder]))
    assert chart.title == "re<i>ft & co"
    assert [(area["name"], area["y"]) for area in chart.data] == [("ok", [0.75, 1.0]), ("exception", [0.25, 0.0])]
    assert {area["stackgroup"] for area in chart.data} == {"statuses"}


def test_accuracy_against_k(sft: Any, reft: Any, reranker: Any) -> None:
    runs = read_runs([sft.folder, reft.folder, reranker.folder])
    reft.sampled("train", [reft.question(0, "x")])
    charts = accuracy_against_k(runs, find_rankings(runs)[0])
    assert [chart.title for chart in charts] == [
        "ordinary: voting@k",
        "ordinary: rerank@k",
        "ordinary: pass@k, the upper bound",
    ]
    voting, rerank, passed = (chart.data[0] for chart in charts)
    assert voting["x"] == rerank["x"] == [1, 2, 4]
    # Of question 0 two of four samples are right, of question 1 none: pass@2 is (1 - C(2, 2) / C(4, 2)) / 2.
    assert passed["y"] == pytest.approx([0.25, 5 / 12, 0.5])
    assert [y + above for y, above in zip(passed["y"], passed["error_y"]["array"], strict=True)][-1] == pytest.approx(
        wilson_interval(1, 2)[1]
    )
    assert rerank["line"]["color"] == voting["line"]["color"], "of the policy that wrote these samples"
    assert charts[0].layout["xaxis"]["type"] == "log"
    assert charts[0].layout["xaxis"]["tickvals"] == [1, 2, 4]
    (scale,) = {tuple(chart.layout["yaxis"]["range"]) for chart in charts}  # one for the three
    assert scale[0] == 0.0
    assert wilson_interval(1, 2)[1] < scale[1] <= 1.0

"""Rows that are means of several runs, checked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reft_pl.cli import main
from reft_pl.evaluation.intervals import mean_interval, paired_difference
from reft_pl.evaluation.report.groups import RunGroup, group_tables, mean_of_runs
from reft_pl.evaluation.report.rankings import find_rankings
from reft_pl.evaluation.report.runs import read_runs
from reft_pl.evaluation.report.table import Gain

NewRun = Callable[[str], Any]

# Of four samples, r is correct (answer 1) and w is wrong (answer 2).
VOTES = {1: ("rrww", "rwww"), 2: ("rrrw", "rwww")}
"""By seed: the verdicts of the samples of q0 and q1."""

SCORES = {1: [0.9, 0.2, 0.1, 0.1], 2: [0.9, 0.1, 0.1, 0.1]}


@pytest.fixture
def two_seeds(new_run: NewRun, tmp_path: Path) -> Path:
    """Two recipes under two seeds; the second was sampled and has a reranker."""
    for seed, votes in VOTES.items():
        (tmp_path / "runs" / str(seed)).mkdir(parents=True)
        sft, reft, reranker = (new_run(f"{seed}/{name}") for name in ("sft", "reft", "reft-reranker"))
        sft.tested("ordinary", {"q0": seed == 1, "q1": False, "q2": False, "q3": True})
        reft.tested("ordinary", {"q0": True, "q1": seed == 2, "q2": False, "q3": True})
        items = [reft.question(i, "a", "b", "c", "d", right=verdicts) for i, verdicts in enumerate(votes)]
        reft.sampled("ordinary", items)
        reranker.ranked("ordinary", f"runs/{seed}/reft/samples/ordinary.jsonl", items, SCORES[seed])
    return tmp_path / "runs"


def groups_of(folder: Path, *names: str) -> tuple[list[RunGroup], Any]:
    groups = [RunGroup(name, read_runs(sorted(folder.glob(f"*/{name}")))) for name in names]
    runs = [run for group in groups for run in group.runs]
    return groups, find_rankings(runs)[0]


def test_a_row_is_the_mean_of_its_runs_and_its_gain_is_paired(two_seeds: Path) -> None:
    ((sft, reft),) = (table.rows for table in group_tables(*groups_of(two_seeds, "sft", "reft", "reft-reranker")))
    assert sft.remark == reft.remark == "mean of 2 runs"
    before, after = [0.5, 0.0, 0.0, 1.0], [1.0, 0.5, 0.0, 1.0]
    top1, gain = reft.figures["Top-1"], reft.figures["gain"]
    assert (top1.mean, top1.low, top1.high) == pytest.approx(mean_interval(after))
    assert isinstance(gain, Gain)
    assert (gain.mean, gain.low, gain.high) == pytest.approx(paired_difference(before, after))
    assert str(gain).startswith("+25.0 (")
    assert "gain" not in sft.figures


def test_votes_and_scores_are_means_of_questions_and_runs(two_seeds: Path) -> None:
    (table,) = group_tables(*groups_of(two_seeds, "sft", "reft", "reft-reranker"))
    figures = table.rows[1].figures
    # q0: a tie of 2 and 2, then 3 of 4; q1: 1 of 4 in both runs.
    assert figures["Voting"].mean == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    # The sums of the scores of answer 1 and answer 2. Seed 1: 1.1 and 0.2, 0.9 and 0.4. Seed 2: 1.1 and 0.1, 0.9 and 0.3.
    assert figures["weighted"].mean == pytest.approx(1)
    assert figures["Rerank"].mean == pytest.approx(1), "the first sample has the best score and is correct"
    assert figures["upper bound"].mean == pytest.approx(1)
    assert figures["weighted - vote"].mean == pytest.approx(1 - 0.375)
    assert table.columns["Voting"] == "Voting@4"
    assert "Voting" not in table.rows[0].figures, "it was not sampled"


def test_fewer_samples_have_no_votes_with_scores(two_seeds: Path) -> None:
    (table,) = group_tables(*groups_of(two_seeds, "reft", "reft-reranker"), k=2)
    figures = table.rows[0].figures
    assert {"Voting", "Rerank", "upper bound"} <= figures.keys()
    assert not {"weighted", "weighted - vote", "tie-break"} & figures.keys()


def test_a_figure_that_one_run_lacks_is_left_out(two_seeds: Path) -> None:
    (two_seeds / "2" / "reft" / "samples" / "ordinary.jsonl").unlink()
    (table,) = group_tables(*groups_of(two_seeds, "sft", "reft", "reft-reranker"))
    assert table.rows[1].figures.keys() == {"Top-1", "gain"}


@pytest.mark.parametrize(
    ("runs", "mean"),
    [
        ([{"a": 1.0, "b": 0.0}, {"b": 1.0, "a": 1.0}], {"a": 1.0, "b": 0.5}),
        ([{"a": 1.0}, {"b": 1.0}], {}),
        ([{"a": 1.0}, {}], {}),
    ],
)
def test_runs_on_other_questions_have_no_mean(runs: list[dict[str, float]], mean: dict[str, float]) -> None:
    assert mean_of_runs(runs) == mean


def test_the_report_of_patterns(two_seeds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(two_seeds.parent)
    assert main(["report", "runs/*/sft", "runs/*/reft", "runs/*/reft-reranker"]) == 0
    table = capsys.readouterr().out
    assert "| run | Top-1 | gain | Voting@4 | Rerank@4 | weighted@4 | weighted - vote | tie-break@4 | upper bound |" in table
    assert "| runs/\\*/sft (mean of 2 runs) | 37.5% " in table
    page = Path("report/report.html").read_text()
    assert "<small>mean of 2 runs</small>" in page
    assert '"name":"1/reft"' in page, "solutions and curves are of the first run of each pattern"
    assert '"name":"2/reft"' not in page

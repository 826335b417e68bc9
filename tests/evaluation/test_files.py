import json
from pathlib import Path

import pytest

from reft_pl.errors import UserError
from reft_pl.evaluation.files import read_predictions, read_results, update_results, write_aside, write_predictions
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason


def sample(value: float | None, gold: float) -> Sample:
    result = ExecutionResult(Status.OK, value) if value is not None else ExecutionResult(Status.TIMEOUT)
    completion = Completion("0:a", 0, (5, 2), (-0.1, -0.2), StopReason.EOS)
    return Sample(
        Problem("a", "How many “all”?", gold), completion, "def solution():\u2028 ...", result
    )  # U+2028 is a line end to str.splitlines()


def test_results_merge_by_section(tmp_path: Path) -> None:
    update_results(tmp_path, "test", {"ordinary": {"top1": 0.5}})
    update_results(tmp_path, "fit", {"batches": 3})
    update_results(tmp_path, "test", {"unseen": {"top1": 0.25}})
    assert read_results(tmp_path) == {"test": {"ordinary": {"top1": 0.5}, "unseen": {"top1": 0.25}}, "fit": {"batches": 3}}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"], "nothing half-written is left"


def test_broken_results_are_reported_and_kept(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json is not valid JSON"):
        update_results(tmp_path, "fit", {})
    assert (tmp_path / "results.json").read_text() == "{"


def test_predictions_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "ordinary.jsonl"
    write_predictions(path, [sample(4.0, 4.0), sample(None, 4.0)], [True, False])
    right, wrong = read_predictions(path)
    assert right["correct"]
    assert right["answer"] == 4.0
    assert right["question"] == "How many “all”?"
    assert not wrong["correct"]
    assert wrong["answer"] is None
    assert wrong["status"] == "timeout"
    assert "“all”" in path.read_text(encoding="utf-8"), "readable by a person, not escaped"
    json.loads(path.read_text(encoding="utf-8").split("\n")[0])


def test_an_untested_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reft-pl test"):
        read_predictions(tmp_path / "none.jsonl")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_aside(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_aside(path, "\udcff")
    assert path.read_text() == "old"

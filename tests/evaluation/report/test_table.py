import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reft_pl.errors import UserError
from reft_pl.evaluation.files import forget_test
from reft_pl.evaluation.report.rankings import find_rankings
from reft_pl.evaluation.report.runs import read_runs
from reft_pl.evaluation.report.table import Table, tables, to_markdown
from reft_pl.evaluation.report.write import write_report
from tests.evaluation.report.conftest import alone

NewRun = Callable[[str], Any]


def tables_of(*folders: Any) -> list[Table]:
    runs = read_runs([getattr(folder, "folder", folder) for folder in folders])
    return tables(runs, find_rankings(runs)[0])


def test_a_row_has_the_measured_figures(sft: Any, reft: Any, reranker: Any) -> None:
    (table,) = tables_of(sft, reft, reranker)
    assert table.columns == {
        "Top-1": "Top-1", "Voting": "Voting@4", "Rerank": "Rerank@4", "weighted": "weighted@4",
        "tie-break": "tie-break@4", "upper bound": "upper bound",
    }  # fmt: skip
    first, second = table.rows
    assert (first.run, second.run) == ("sft", "re<i>ft & co")
    assert set(first.figures) == {"Top-1"}
    assert table.cell(first, "Rerank") == "-"
    means = {column: figure.mean for column, figure in second.figures.items()}
    # Of question 0 half of the samples are right (a tie of two and two), of question 1 none. The reranker likes the third best,
    # which is wrong; by sum of scores the right answer has 0.7 against 1.0.
    by_score = {"Rerank": 0.0, "weighted": 0.0, "tie-break": 0.0}
    assert means == pytest.approx({"Top-1": 0.25, "Voting": 0.25, "upper bound": 0.5, **by_score})
    assert second.remark == "ranked by reranker"


def test_markdown_shows_names_as_they_are(reft: Any) -> None:
    lines = to_markdown(*tables_of(reft)).splitlines()
    assert lines[2] == "| run | Top-1 | Voting@4 | upper bound |"
    assert lines[4].startswith(r"| re\<i\>ft \& co | 25.0% (10.0 to 90.0), 4 questions | 25.0% (4.0 to 72.8), 2 questions | ")


def test_an_equal_number_of_questions_is_stated_once(sft: Any) -> None:
    (table,) = tables_of(sft)
    assert table.title == "ordinary (4 questions)"
    assert table.cell(table.rows[0], "Top-1") == "50.0% (10.0 to 90.0)"


def test_different_numbers_of_samples_are_stated(new_run: NewRun) -> None:
    a, b = new_run("a"), new_run("b")
    a.sampled("ordinary", [a.question(0, "x", "y", right="rr")])
    b.sampled("ordinary", [b.question(0, "x", "y", "z", right="rr")])
    (table,) = tables_of(a, b)
    assert table.columns["Voting"] == "Voting@n"
    assert [table.cell(row, "Voting") for row in table.rows] == [
        "100.0% (20.7 to 100.0), n = 2",
        "100.0% (20.7 to 100.0), n = 3",
    ]


def test_runs_are_compared_at_a_number_of_samples_that_all_have(new_run: NewRun) -> None:
    a, b = new_run("a"), new_run("b")
    a.sampled("ordinary", [a.question(0, "x", "y", right="rw")])
    b.sampled("ordinary", [b.question(0, "x", "x", "y", "z", right="rrww")])
    runs = read_runs([a.folder, b.folder])
    (table,) = tables(runs, [], 2)
    assert table.columns == {"Voting": "Voting@2", "upper bound": "upper bound"}
    # Of the pairs of b's samples one has two votes for the right answer, four hold it in a tie of two, and one does not.
    assert [row.figures["Voting"].mean for row in table.rows] == pytest.approx([0.5, (1 + 4 / 2) / 6])
    with pytest.raises(UserError, match="there are figures for 1, 2, 4 samples a question"):
        tables(runs, [], 3)


def test_votes_with_scores_that_k_leaves_out_are_reported(reft: Any, reranker: Any, tmp_path: Path) -> None:
    folders = [reft.folder, reranker.folder]
    at_two, page = write_report(alone(*folders), tmp_path / "report", 2)
    note = "The votes with scores are measured only for all samples of a question (4): leave out --k 2 to see them."
    assert "Rerank@2" in at_two
    assert "weighted@" not in at_two
    assert note in at_two
    assert note in page.read_text()
    for k in (4, None):
        markdown, _ = write_report(alone(*folders), tmp_path / "report", k)
        assert "weighted@4" in markdown
        assert "tie-break@4" in markdown
        assert "Weighted voting is" not in markdown


def test_training_samples_are_not_a_test_set(reft: Any) -> None:
    reft.sampled("train", [reft.question(0, "x")])
    assert [table.name for table in tables_of(reft)] == ["ordinary"]


def test_a_reranker_finds_its_policy_from_any_folder(
    reft: Any, reranker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = read_runs([reft.folder, reranker.folder])
    for folder in (tmp_path, Path("/")):
        monkeypatch.chdir(folder)
        assert find_rankings(runs)[0][0].policy is runs[0]
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "runs")
    linked = read_runs([link / "reranker", link / reft.folder.name])
    assert find_rankings(linked)[0][0].policy is linked[1]
    assert not os.fspath(linked[1].folder).startswith(str(tmp_path / "runs"))


def test_a_reranker_without_its_policy_has_a_separate_row(sft: Any, reranker: Any) -> None:
    (table,) = tables_of(sft, reranker)
    assert table.rows[1].run == "reranker"
    assert table.rows[1].remark == "ranks runs/re<i>ft & co/samples/ordinary.jsonl"
    assert table.rows[1].figures["upper bound"].mean == 0.5


def test_two_rerankers_are_two_rows(reft: Any, reranker: Any, new_run: NewRun) -> None:
    other = new_run("other")
    (other.folder / "results.json").write_text((reranker.folder / "results.json").read_text())
    (table,) = tables_of(reft, reranker, other)
    assert [row.remark for row in table.rows] == ["ranked by reranker", "ranked by other"]


def test_figures_of_earlier_samples_are_left_out(reft: Any, reranker: Any) -> None:
    reft.sampled("ordinary", [reft.question(0, "a", "b", "c", "d", right="r"), reft.question(1, "d", "d", "e", "e", right="r")])
    runs = read_runs([reft.folder, reranker.folder])
    rankings, notes = find_rankings(runs)
    assert rankings == []
    assert "reranker ranked other samples than " in notes[0]
    assert "Rerank" not in tables(runs, rankings)[0].columns


@pytest.mark.parametrize("settings", [{"n": 4, "weights": "former"}, {"n": 4}])
def test_figures_of_earlier_weights_are_not_shown(reft: Any, reranker: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    """After more training a sampled run has no figures, but still the samples and their reranker scores."""
    hf = reft.folder / "hf"
    hf.mkdir()
    (hf / "reft.json").write_text('{"weights": "present"}')
    (reft.folder / "samples" / "ordinary.settings.json").write_text(json.dumps(settings))
    forget_test(reft.folder)
    reft.tested("ordinary", {"q0": True, "q1": True})
    markdown, page = write_report(alone(reft.folder, reranker.folder), tmp_path / "report")
    assert "| run | Top-1 |\n" in markdown
    assert "| 100.0% (" in markdown
    assert r"other weights than those in its hf/ wrote samples/ordinary.jsonl" in markdown
    assert r"reranker ranked samples that re\<i\>ft \& co wrote before it was trained further" in markdown
    data = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    assert set(data["browser"]["origins"]) == {"greedy", "rollout"}
    assert data["charts"]["accuracy"] == []


def test_figures_of_other_weights_than_the_exported_are_left_out(reft: Any) -> None:
    (reft.folder / "hf").mkdir()
    (reft.folder / "hf" / "reft.json").write_text('{"weights": "present"}')
    results = json.loads((reft.folder / "results.json").read_text())
    for section, weights in (("test", "present"), ("samples", "former")):
        results[section]["ordinary"]["weights"] = weights
    (reft.folder / "results.json").write_text(json.dumps(results))
    (run,) = read_runs([reft.folder])
    (table,) = tables([run], [])
    assert list(table.columns) == ["Top-1"]
    assert run.sample_files == []
    assert "the figures of ordinary in section 'samples' of its results.json are of other weights" in run.notes[0]


@pytest.mark.parametrize("hf", [None, {}, {"weights": "present"}])
def test_samples_of_unknown_weights_are_kept(hf: dict[str, str] | None, reft: Any, reranker: Any) -> None:
    if hf is not None:
        (reft.folder / "hf").mkdir()
        (reft.folder / "hf" / "reft.json").write_text(json.dumps(hf))
    if hf is None:  # another model's, in a folder that has no export
        (reft.folder / "samples" / "ordinary.settings.json").write_text('{"weights": "of another model"}')
    forget_test(reft.folder)
    runs = read_runs([reft.folder, reranker.folder])
    (ranking,), notes = find_rankings(runs)
    assert ranking.policy is runs[0]
    assert runs[0].sample_files
    assert not notes
    assert not runs[0].notes


def test_incomplete_samples_are_kept(reft: Any) -> None:
    (reft.folder / "hf").mkdir()
    (reft.folder / "hf" / "reft.json").write_text('{"weights": "present"}')
    (reft.folder / "samples" / "ordinary.settings.json").write_text('{"n": 4}')
    (reft.folder / "samples" / ".ordinary.parts").mkdir()
    forget_test(reft.folder)
    assert read_runs([reft.folder])[0].sample_files


def test_names_are_as_short_as_possible(new_run: NewRun) -> None:
    runs = [new_run(name) for name in ("1/sft", "2/sft", "2/ppo")]
    for run in runs:
        run.tested("ordinary", {"q": True})
    folders = [run.folder for run in runs]
    assert [run.name for run in read_runs(folders[1:])] == ["sft", "ppo"]
    assert [run.name for run in read_runs([*folders, folders[0]])] == ["1/sft", "2/sft", "2/ppo"], "each run has one row"


def test_a_folder_without_a_run(new_run: NewRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no run folder .*nowhere"):
        read_runs([tmp_path / "nowhere"])
    empty = new_run("empty")
    empty.stage("SFT")
    with pytest.raises(UserError, match="empty holds nothing to report"):
        read_runs([empty.folder])
    (empty.folder / "results.json").write_text(json.dumps({"fit": {"batches": 1}}))
    assert read_runs([empty.folder])[0].stage == "SFT"

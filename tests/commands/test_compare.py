import json
from pathlib import Path

import pytest

from reft_pl.cli import main


def write_run(folder: Path, verdicts: dict[str, bool]) -> None:
    (folder / "predictions").mkdir(parents=True)
    rows = [
        {
            "item_id": item,
            "question": f"Q{item}?",
            "response": f"r{item}\x1b[2J",
            "status": "ok",
            "answer": 1,
            "gold": 2,
            "correct": ok,
        }
        for item, ok in verdicts.items()
    ]
    (folder / "predictions" / "ordinary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_two_runs_on_the_same_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "sft", {"a": True, "b": False, "c": False, "d": False})
    write_run(tmp_path / "ppo", {"d": True, "c": False, "b": True, "a": True})  # in another order
    assert main(["compare", str(tmp_path / "sft"), str(tmp_path / "ppo"), "--markdown", "--examples", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| 25.0% " in printed
    assert "| 75.0% " in printed
    assert "+50.0 (" in printed
    assert "Qd?" in printed, "an example that only the last run solved"
    assert "rd\\x1b[2J" in printed
    assert "\x1b" not in printed


def test_a_pattern_is_the_mean_of_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, first in enumerate([True, False]):
        write_run(tmp_path / str(seed) / "sft", {"a": first, "b": True})
    assert main(["compare", str(tmp_path / "*" / "sft"), "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert "(mean of 2)" in printed
    assert "| 75.0% " in printed


def test_runs_that_solve_nothing_have_an_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        write_run(tmp_path / str(seed) / "sft", dict.fromkeys("abcdefghij", False))
    assert main(["compare", str(tmp_path / "*" / "sft"), "--markdown"]) == 0
    assert "| 0.0% (0.0% to 27.8%) |" in capsys.readouterr().out, "z^2 / (10 + z^2)"


def test_a_set_missing_in_one_run_is_left_out_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "sft", {"a": False, "b": True})
    write_run(tmp_path / "ppo", {"a": True, "b": True})
    more = tmp_path / "ppo" / "predictions"
    (more / "unseen.jsonl").write_text((more / "ordinary.jsonl").read_text())
    assert main(["compare", str(tmp_path / "sft"), str(tmp_path / "ppo"), "--markdown"]) == 0
    header, _, sft, ppo = capsys.readouterr().out.splitlines()
    assert header.split(" | ")[-2:] == ["unseen", "unseen: gain over the first |"]
    assert "| 50.0% " in sft
    assert sft.endswith("| - | - | - |")
    assert "| +50.0 (" in ppo
    assert ppo.endswith("| 100.0% (34.2% to 100.0%) | - |")


def test_an_untested_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    assert main(["compare", str(tmp_path / "run")]) == 2
    assert "run `reft-pl test` on this run first" in capsys.readouterr().err


def test_other_questions_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", {"x": True})
    write_run(tmp_path / "b", {"y": True})
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--markdown"]) == 0
    assert "other questions" in capsys.readouterr().out

"""`reft-pl prepare` on files in the releases' formats, and on GSM8K itself."""

import json
from pathlib import Path

import pytest

from reft_pl.cli import main
from reft_pl.data.sources import AuthorsJson

GSM8K = [
    {"question": 'He said "go" 3 times 4.', "answer": "He said 3*4=<<3*4=12>>12 words.\n#### 12"},
    {"question": "Of 3 and 4.", "answer": "So 3+4=<<3+4=7>>7 words.\n#### 8"},
    {"question": "Who?", "answer": "Nobody.\n#### 1"},
    {"question": "No answer.", "answer": "3+4=<<3+4=7>>7"},
]


def prepare(tmp_path: Path, dataset: str, rows: object, *options: str) -> tuple[int, Path]:
    source, output = tmp_path / "official.json", tmp_path / "out" / "prepared.json"
    source.write_text(json.dumps(rows))
    return main(["prepare", dataset, "--source", str(source), "--output", str(output), *options]), output


def test_correct_programs_are_kept_and_the_rest_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = prepare(tmp_path, "gsm8k", GSM8K)
    assert code == 0
    printed = capsys.readouterr().out
    assert f"kept 1 of 4 (25.00%) in {output}\n" in printed
    for reason in ("its program comes to another answer", "no equation to read", "no number after ####"):
        assert f"left out 1: {reason}\n" in printed
    (problem,) = AuthorsJson(str(output)).load()
    assert (problem.id, problem.answer) == ("gsm8k_0", 12.0)
    assert list(output.parent.iterdir()) == [output], "nothing is left beside it"


def test_svamp_and_its_two_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "ID": "chal-1",
        "Body": "If a pack of 76 is 25 off",
        "Question": "What is it?",
        "Equation": "( 76.0 - 25.0 )",
        "Answer": 51.0,
    }
    code, output = prepare(tmp_path, "svamp", [row, row | {"Equation": "( 25.0 - 76.0 )"}])
    assert code == 0
    assert "kept 1 of 2" in capsys.readouterr().out
    (problem,) = AuthorsJson(str(output)).load()
    assert (problem.question, problem.answer) == ("If a pack of 76 is 25 off, What is it?", 51.0)
    assert prepare(tmp_path, "svamp", [row], "--cot", "nl")[0] == 2


def test_the_nearest_option_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "Problem": "what is 3 times 4 ?",
        "options": "a ) 12 , b ) 40 , c ) 50",
        "correct": "a",
        "linear_formula": "multiply(n0,n1)|",
    }
    code, _ = prepare(tmp_path, "mathqa", [row, row | {"linear_formula": "add(n0,n1)|"}])
    assert code == 0
    assert "left out 1: its program comes to another answer" in capsys.readouterr().out


def test_user_errors_are_one_sentence_and_leave_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = prepare(tmp_path, "mathqa", GSM8K)
    assert code == 2
    assert "gives no mathqa problem (4 no Problem)" in capsys.readouterr().err
    assert not output.parent.exists()
    assert main(["prepare", "gsm8k", "--source", str(tmp_path / "none.jsonl"), "--output", str(output)]) == 2
    assert "file not found" in capsys.readouterr().err
    assert prepare(tmp_path, "gsm8k", {"a": 1})[0] == 2


@pytest.mark.slow
def test_at_least_95_percent_of_gsm8k(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(shared / "data" / "gsm8k_official_train.jsonl")
    assert main(["prepare", "gsm8k", "--source", source, "--output", str(tmp_path / "prepared.json")]) == 0
    kept = int(capsys.readouterr().out.split()[1])
    assert kept >= 0.95 * 7473
    for problem in AuthorsJson(str(tmp_path / "prepared.json")).load():
        assert problem.solution is not None
        (result,) = [line for line in problem.solution.splitlines() if line.startswith("    result = ")]
        assert result.removeprefix("    result = ").isidentifier(), "always a step, never a number"

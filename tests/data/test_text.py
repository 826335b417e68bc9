"""Reference answers: thousands separators are read, ambiguous separators are refused."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reft_pl.commands.prepare import main as prepare
from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.data.programs.official import read_release
from reft_pl.data.programs.writing import Unconvertible
from reft_pl.data.sample_file import read_samples
from reft_pl.data.sources import AuthorsJson, Gsm8kOfficial, ProblemSource
from reft_pl.data.text import is_ambiguous_number, stated_number
from reft_pl.errors import UserError
from reft_pl.formats.parsing import parse_number

AMBIGUOUS = [
    "1,5", "1,2,3", "12,34", "1,25", "2,50", "3,0", "-0,5", "1.234,56", "1,000,00", ",5", "1,", "1,000,", "1,0000",
    "1234,567",    "0,125", "0,500", "-0,125", "00,123", "1 000", "1\u202f000", "1_5", "1'5", "1,000'000", "1.000.000",
    "1\uff0c5", "\uff11\uff0c\uff15", "1\u066b5",
]  # fmt: skip


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_an_ambiguous_separator_is_refused(text: str) -> None:
    assert stated_number(text) is None
    assert is_ambiguous_number(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,024", 1024), ("12,345,678", 12345678), ("-1,000", -1000), ("1,234.5", 1234.5), ("$1,024", 1024), ("25%", 25),
        (" 5\n", 5), ("+5", 5), ("5.", 5), (".5", 0.5), ("0.125", 0.125), ("1e3", 1000), ("1.5E-2", 0.015), ("007", 7),
        ("1_000", 1000), ("1'000", 1000), ("1\u2019000", 1000),
        ("1\uff0c000", 1000), ("\uff11\uff0c\uff10\uff10\uff10", 1000), ("\u22125", -5), ("1234567", 1234567),
    ],
)  # fmt: skip
def test_a_plain_number_is_read(text: str, number: float) -> None:
    assert stated_number(text) == number


@pytest.mark.parametrize("text", ["", "many", "nan", "inf", "-Infinity", "1e400", "0x10", "1/2", "five", "[1]", "²"])
def test_text_that_is_not_a_number_is_none(text: str) -> None:
    assert stated_number(text) is None
    assert not is_ambiguous_number(text)


def test_gold_answers_and_responses_are_read_alike() -> None:
    """For all short texts of digits and separators: reference answer and response with the same text give the same number."""
    pieces = ["1", "0", "25", "000", ",", ".", "'", "_", "-", "\uff0c", " "]
    for parts in itertools.chain.from_iterable(itertools.product(pieces, repeat=n) for n in range(1, 6)):
        text = "".join(parts)
        number = stated_number(text)
        assert number is None or number == parse_number(text), text


def write_json(path: Path, answer: str) -> ProblemSource:
    path.write_text(json.dumps([{"question": "Q?", "answer": "1"}, {"question": "Q?", "answer": answer}]))
    return HFDatasetSource(str(path.rename(path.with_suffix(".json"))))


def write_lines(path: Path, answer: str) -> ProblemSource:
    path.write_text("".join(json.dumps({"question": "Q?", "answer": a}) + "\n" for a in ("1", answer)))
    return HFDatasetSource(str(path.rename(path.with_suffix(".jsonl"))))


def write_csv(path: Path, answer: str) -> ProblemSource:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), ("Q?", "1"), ("Q?", answer)])
    return HFDatasetSource(str(path.rename(path.with_suffix(".csv"))))


def write_arrow(path: Path, answer: str) -> ProblemSource:
    from datasets import Dataset

    Dataset.from_dict({"question": ["Q?", "Q?"], "answer": ["1", answer]}).save_to_disk(str(path))
    return HFDatasetSource(str(path))


def write_pattern(path: Path, answer: str) -> ProblemSource:
    path.write_text("".join(json.dumps({"question": "Q?", "answer": f"So.\n#### {a}"}) + "\n" for a in ("1", answer)))
    return HFDatasetSource(str(path.rename(path.with_suffix(".jsonl"))), answer_pattern=r"####\s*(.+)")


def write_authors(path: Path, answer: str) -> ProblemSource:
    rows = [{"item_id": f"svamp_{n}", "question": "Q?", "answer_value": a} for n, a in enumerate(("1", answer))]
    path.write_text(json.dumps(rows))
    return AuthorsJson(str(path))


def write_gsm8k(path: Path, answer: str) -> ProblemSource:
    path.write_text("".join(json.dumps({"question": "Q?", "answer": f"So.\n#### {a}"}) + "\n" for a in ("1", answer)))
    return Gsm8kOfficial(str(path))


SOURCES = [write_json, write_lines, write_csv, write_arrow, write_pattern, write_authors, write_gsm8k]


@pytest.mark.parametrize("write", SOURCES)
@pytest.mark.parametrize("answer", ["1,5", "1.234,56", "0,125"])
def test_every_source_refuses_or_skips_a_decimal_comma(
    write: Callable[[Path, str], ProblemSource], answer: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows", answer)
    with pytest.raises(
        UserError, match=rf"(line|item|row) [23] .*has the ambiguous answer '\s*{answer}': write decimals with a point"
    ):
        source.load()
    source.on_bad_row = "skip"  # type: ignore[attr-defined]
    assert [problem.answer for problem in source.load()] == [1.0]


@pytest.mark.parametrize("write", SOURCES)
def test_every_source_reads_thousands(write: Callable[[Path, str], ProblemSource], tmp_path: Path) -> None:
    assert [problem.answer for problem in write(tmp_path / "rows", "1,024").load()] == [1.0, 1024.0]


def test_sampled_candidates_refuse_a_decimal_comma(tmp_path: Path) -> None:
    row = {"item_id": "svamp_1", "question": "Q?", "answer_value": "1,5", "answer_cot": None, "predictions": []}
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"line 1 .*'1,5' is not a finite number such as 1\.5 or 1,500"):
        read_samples(path)
    path.write_text(json.dumps({**row, "answer_value": "1,024.0"}) + "\n")
    assert read_samples(path)[0].gold == 1024.0


def test_prepare_leaves_decimal_commas_out_and_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gsm8k.jsonl"
    answers = ("3", "1,5", "3,0", "1,024")
    path.write_text("".join(json.dumps({"question": "Q?", "answer": f"So.\n#### {a}"}) + "\n" for a in answers))
    assert prepare(["gsm8k", "--cot", "nl", "--source", str(path), "--output", str(tmp_path / "x.json")]) == 0
    assert [row["answer_value"] for row in json.loads((tmp_path / "x.json").read_text())] == ["3", "1024"]
    assert "left out 2: the answer's separators are ambiguous" in capsys.readouterr().out


def test_prepare_svamp_refuses_a_decimal_comma(tmp_path: Path) -> None:
    path = tmp_path / "svamp.json"
    path.write_text(json.dumps([{"Body": "B.", "Question": "Q?", "Equation": "( 3.0 / 2.0 )", "Answer": "1,5"}]))
    (refused,) = read_release("svamp", path, "python")
    assert isinstance(refused, Unconvertible)
    assert "ambiguous" in str(refused)

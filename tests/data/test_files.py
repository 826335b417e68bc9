"""Input files of all kinds: the content determines the type, and errors name the fault."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import logging
from pathlib import Path

import pytest

from reft_pl.commands.prepare import main as prepare
from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.data.programs.official import read_release
from reft_pl.data.sources import AuthorsJson, Gsm8kOfficial, ProblemSource
from reft_pl.errors import UserError

ROWS = [{"question": f"Q{i} \u00e9?", "answer": f"#### {i}"} for i in range(3)]
AUTHORS = [{"item_id": f"svamp_{i}", "question": f"Q{i} \u00e9?", "answer_value": str(i)} for i in range(3)]


def as_lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_list(rows: list[dict[str, str]]) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=2)


def sources(path: Path, form: object) -> list[ProblemSource]:
    """Return every source that reads such a file, each with rows in its format."""
    path.write_text(form(ROWS), encoding="utf-8")  # type: ignore[operator]
    other = path.with_name(f"authors-{path.name}")
    other.write_text(form(AUTHORS), encoding="utf-8")  # type: ignore[operator]
    return [HFDatasetSource(str(path), answer_pattern="#### (.*)"), Gsm8kOfficial(str(path)), AuthorsJson(str(other))]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "ROWS.JSON"])
@pytest.mark.parametrize("form", [as_lines, as_list])
def test_a_list_and_lines_are_read_under_either_name(name: str, form: object, tmp_path: Path) -> None:
    for source in sources(tmp_path / name, form):
        assert [(p.question, p.answer) for p in source.load()] == [(f"Q{i} \u00e9?", float(i)) for i in range(3)]
    drafts = list(read_release("gsm8k", tmp_path / name, "nl"))
    assert len(drafts) == 3


ENCODINGS = {
    "bom": lambda text: codecs.BOM_UTF8 + text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzipped utf-16": lambda text: gzip.compress(text.encode("utf-16")),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["list", "lines", "csv", "semicolons"])
def test_encodings(encoding: str, kind: str, tmp_path: Path) -> None:
    table = "question,answer\n" + "".join(f"Q{i} \u00e9?,{i}\n" for i in range(3))
    plain = [{"question": f"Q{i} \u00e9?", "answer": str(i)} for i in range(3)]
    text = {"list": as_list(plain), "lines": as_lines(plain), "csv": table, "semicolons": table.replace(",", ";")}[kind]
    suffix = ".csv" if kind in ("csv", "semicolons") else ".jsonl"
    path = tmp_path / f"rows{suffix}{'.gz' if encoding.startswith('gzip') else ''}"
    path.write_bytes(ENCODINGS[encoding](text))
    problems = HFDatasetSource(str(path)).load()
    assert [(p.id, p.question, p.answer) for p in problems] == [(f"rows_{i}", f"Q{i} \u00e9?", float(i)) for i in range(3)]


def test_a_csv_field_can_be_long(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,answer\n"' + "x" * 200_000 + '",2\n')
    (problem,) = HFDatasetSource(str(path)).load()
    assert len(problem.question) == 200_000


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_row_without_a_column_is_a_bad_row_at_any_position(
    order: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": "Q?"}, {"question": "Q2?", "answer": "2"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(as_lines([rows[i] for i in order]))
    with caplog.at_level(logging.WARNING):
        assert [p.question for p in HFDatasetSource(str(path), on_bad_row="skip").load()] == ["Q2?"]
    assert "skipped 1 rows (1 missing column), kept 1" in caplog.text
    with pytest.raises(UserError, match="has no column 'answer' for answer; it has 'question'"):
        HFDatasetSource(str(path)).load()


def test_a_column_missing_from_all_rows_is_never_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(as_lines([{"question": "Q?"}, {"question": "R?"}]))
    with pytest.raises(UserError, match=r"rows\.jsonl has no column 'answer' for answer; it has 'question'"):
        HFDatasetSource(str(path), on_bad_row="skip").load()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{\n "question": "Q?",\n "answer": "1"\n}\n', "is not a list of rows but one object"),
        (b'"text"', "is not a list of rows but a single str"),
        (b"PK\x03\x04rest", "is a ZIP archive: unpack it"),
        (b"PAR1rest", "is a Parquet file: rename it to .parquet"),
        (b"<!DOCTYPE html><html>", "is a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (bz2.compress(b"[]"), "is a bzip2 archive: unpack it"),
        (gzip.compress(b"[1, 2, 3]" * 99, mtime=0)[:-9], "is a damaged gzip file"),
        (b'["\xff"]', "is not UTF-8 text"),
        (b"", "has no problems; check the file"),
        (b'[{"question": "Q?",]', "broken JSON at line 1"),
    ],
)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_an_unreadable_file_is_named(content: bytes, sentence: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        HFDatasetSource(str(tmp_path / name)).load()
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_under_a_key_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"data": [{"question": "Q?", "answer": "1"}]}')
    with pytest.raises(UserError, match="is not a list of rows but one object; keep only the list under 'data'"):
        HFDatasetSource(str(path)).load()


def test_a_csv_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,answer\nQ?,1,2\n")
    with pytest.raises(UserError, match="has two columns 'answer': rename one"):
        HFDatasetSource(str(path)).load()


def test_prepare_into_a_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    source = tmp_path / "gsm.jsonl"
    source.write_text(as_lines(ROWS))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out is a folder: give --output the name of a file in it"):
        prepare(["gsm8k", "--cot", "nl", "--source", str(source), "--output", str(tmp_path / "out")])
    with pytest.raises(UserError, match="is a folder"):
        prepare(["gsm8k", "--cot", "nl", "--source", str(tmp_path), "--output", str(tmp_path / "x.json")])
    with pytest.raises(UserError, match=r"cannot write .*give --output another name"):
        prepare(["gsm8k", "--cot", "nl", "--source", str(source), "--output", str(source / "x.json")])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["gsm.jsonl", "out"]

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError

from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.errors import UserError

ROWS = [{"q": "How many?", "a": "So #### 5", "why": "2 + 3"}, {"q": "And now?", "a": "So #### 1,007", "why": None}]
FIELDS = {"question": "q", "answer": "a", "solution": "why", "answer_pattern": r"####\s*(.+)"}


def write(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "csv":
        path.write_text('q,a,why\n"How many?",So #### 5,2 + 3\n"And now?","So #### 1,007",\n')
    elif kind == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    elif kind == "folder":
        Dataset.from_list(ROWS).save_to_disk(path)
    else:
        DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])}).save_to_disk(path)
    return str(path)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "folder", "splits"])
def test_every_kind_of_table_gives_the_same_problems(tmp_path, kind):
    first, second = HFDatasetSource(write(tmp_path, kind), prefix="t", **FIELDS).load()
    assert (first.id, first.question, first.answer, first.solution) == ("t_0", "How many?", 5.0, "2 + 3")
    assert (second.id, second.answer, second.solution) == ("t_1", 1007.0, None)


def test_a_split_of_a_folder(tmp_path):
    path = write(tmp_path, "splits")
    assert len(HFDatasetSource(path, split="test", **FIELDS).load()) == 1
    with pytest.raises(UserError, match="no split 'dev'; it has train, test"):
        HFDatasetSource(path, split="dev", **FIELDS).load()


def test_ids_and_choices_of_the_dataset(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "Q", "answer": "B", "key": 7}\n{"question": "R", "answer": "C", "key": 7}\n')
    with pytest.raises(UserError, match="line 2 has the id '7' of an earlier row"):
        HFDatasetSource(str(path), id="key").load()
    (problem,) = HFDatasetSource(str(path), id="key", limit=1).load()
    assert (problem.id, problem.answer) == ("7", "b")
    with pytest.raises(UserError, match="not a finite number"):
        HFDatasetSource(str(path), answer_type="number").load()


def test_user_errors_are_named(tmp_path, caplog):
    path = write(tmp_path, "jsonl")
    with pytest.raises(UserError, match=r"no column 'question' for question; it has 'q', 'a', 'why'"):
        HFDatasetSource(path).load()
    with pytest.raises(UserError, match="line 1 has no answer that matches"):
        HFDatasetSource(path, question="q", answer="a", answer_pattern="Answer: (.*)").load()
    with pytest.raises(UserError, match="exactly one group"):
        HFDatasetSource(path, answer_pattern="####")
    with pytest.raises(UserError, match="not a regular expression"):
        HFDatasetSource(path, answer_pattern="(")
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="every row was skipped"):
        HFDatasetSource(path, question="q", answer="why", answer_pattern="x(.)", on_bad_row="skip").load()
    assert "skipped 2 rows (2 no answer)" in caplog.text


def test_broken_lines_and_folders_are_named(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"question": "Q", "answer": "5"}\n{oops\n[1]\n')
    with pytest.raises(UserError, match="broken JSON at line 2"):
        HFDatasetSource(str(path)).load()
    assert len(HFDatasetSource(str(path), on_bad_row="skip").load()) == 1
    with pytest.raises(UserError, match="not a folder written by save_to_disk of datasets"):
        HFDatasetSource(str(tmp_path)).load()
    table = tmp_path / "wide.csv"
    table.write_text("question,answer\nQ,5,6\n")
    with pytest.raises(UserError, match="line 2 has more fields than the header"):
        HFDatasetSource(str(table)).load()
    table.with_suffix(".parquet").write_text("no")
    with pytest.raises(UserError, match="not a Parquet file"):
        HFDatasetSource(str(table.with_suffix(".parquet"))).load()
    table.with_suffix(".json").write_text("{}")
    with pytest.raises(UserError, match="is not a list of rows"):
        HFDatasetSource(str(table.with_suffix(".json"))).load()


def test_a_dataset_that_the_hub_does_not_have(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot load the dataset nobody/nothing main split train") as error:
        HFDatasetSource("nobody/nothing", subset="main").load()
    assert "\n" not in str(error.value)


def test_an_unreachable_hub_is_not_asked_again(tmp_path, monkeypatch):
    """One request fails; the library then looks in its cache alone, and its settings are restored."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    begun = time.monotonic()
    with pytest.raises(UserError, match="cannot load the dataset nobody/nothing split train"):
        HFDatasetSource("nobody/nothing").load()
    assert time.monotonic() - begun < 5, "the library's own retries take more than half a minute"
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_quote_that_never_closes_is_one_sentence(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('q,a\n"How many?,5\n')
    with pytest.raises(UserError, match="is broken after line 1"):
        HFDatasetSource(str(path), question="q", answer="a").load()


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"q": "x", "a": ' + "9" * 5000 + "}]"], ids=["deep", "long"])
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_json_that_python_cannot_parse_is_one_sentence(tmp_path, kind, text):
    path = tmp_path / f"rows.{kind}"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        HFDatasetSource(str(path), question="q", answer="a").load()


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_the_case_of_a_file_name_does_not_matter(tmp_path, kind):
    path = Path(write(tmp_path, kind))
    path = path.rename(path.with_suffix(f".{kind.upper()}"))
    source = HFDatasetSource(str(path), **FIELDS)
    assert source.name == str(path)
    assert [p.id for p in source.load()] == ["rows_0", "rows_1"]


@pytest.mark.parametrize("name", ["rows.tsv", "rows"])
def test_a_file_of_another_kind_is_refused_before_the_hub_is_asked(tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    (tmp_path / name).write_text("q\ta\n")
    with pytest.raises(
        UserError, match=rf"{name} is not of a supported file type: convert it to one of \.json, \.jsonl, \.csv, \.parquet"
    ):
        HFDatasetSource(str(tmp_path / name)).load()


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_misspelt_column_is_named_though_the_first_row_is_bad(tmp_path, kind):
    path = Path(write(tmp_path, kind))
    head, first, rest = {"json": ("", "[", "1, "), "jsonl": ("", "", "[1]\n"), "csv": ("q,a,why\n", "", "x,x,x,x\n")}[kind]
    path.write_text(head + first + rest + path.read_text().removeprefix(head).removeprefix(first))
    with pytest.raises(UserError, match="no column 'qq' for question; it has 'q', 'a', 'why'"):
        HFDatasetSource(str(path), question="qq", answer="a", on_bad_row="skip").load()
    assert len(HFDatasetSource(str(path), **FIELDS, on_bad_row="skip").load()) == 2


def test_an_error_of_datasets_is_one_sentence(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise DatasetGenerationError("An error occurred while generating the dataset\nand more")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(UserError, match="cannot load the dataset some/name split train: An error occurred while") as error:
        HFDatasetSource("some/name").load()
    assert "\n" not in str(error.value)
    monkeypatch.setattr("datasets.Dataset.from_parquet", fail)
    with pytest.raises(UserError, match=r"rows\.parquet is not a Parquet file: An error occurred while") as error:
        HFDatasetSource(write(tmp_path, "parquet")).load()
    assert "\n" not in str(error.value)
    monkeypatch.setattr("datasets.load_from_disk", fail)
    with pytest.raises(UserError, match="is not a folder written by save_to_disk of datasets: An error occurred while"):
        HFDatasetSource(write(tmp_path, "folder")).load()


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "folder", "splits"])
def test_named_columns_go_with_the_problem(tmp_path, kind):
    path = write(tmp_path, kind)
    first, second = HFDatasetSource(path, **FIELDS, columns=["why", "q"]).load()
    assert dict(first.columns) == {"why": "2 + 3", "q": "How many?"}
    assert second.columns["why"] in (None, "")
    (renamed, _) = HFDatasetSource(path, **FIELDS, columns={"reason": "why"}).load()
    assert dict(renamed.columns) == {"reason": "2 + 3"}
    with pytest.raises(UserError, match="no column 'tests' for tests; it has"):
        HFDatasetSource(path, **FIELDS, columns=["tests"]).load()


def test_columns_keep_lists_and_mappings(tmp_path):
    path = tmp_path / "tests.jsonl"
    path.write_text(json.dumps({"question": "Q", "answer": 1, "tests": [{"in": 1, "out": 2}]}) + "\n")
    (problem,) = HFDatasetSource(str(path), columns=["tests"]).load()
    assert problem.columns["tests"] == [{"in": 1, "out": 2}]
    (bare,) = HFDatasetSource(str(path)).load()
    assert not bare.columns

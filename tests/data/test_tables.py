import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from reft_pl.data.tables import Table, find_tables
from reft_pl.errors import UserError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("{}\n")
    return folder


def test_a_file_is_the_training_table(tmp_path: Path) -> None:
    path = str(touch(tmp_path, "rows.jsonl.gz") / "rows.jsonl.gz")
    assert find_tables(path) == {"train": Table(path)}


def test_a_folder_has_a_file_for_each_set(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data", "train.jsonl", "validation.csv", "test.parquet", "README.md", "evil.pkl", "evil.py")
    expected = {name: Table(str(folder / file)) for name, file in
                [("train", "train.jsonl"), ("validation", "validation.csv"), ("test", "test.parquet")]}  # fmt: skip
    assert find_tables(str(folder)) == expected
    single = touch(tmp_path / "single", "mine.json")
    assert find_tables(str(single)) == {"train": Table(str(single / "mine.json"))}


def test_an_unclear_folder_names_its_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has a\.json, b\.json: name the file to train on"):
        find_tables(str(touch(tmp_path / "two", "a.json", "b.json")))
    with pytest.raises(UserError, match="holds no"):
        find_tables(str(touch(tmp_path / "none", "a.txt")))


def test_a_saved_folder_has_its_splits(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"question": "How many?", "answer": "3"}])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "several")
    DatasetDict({"main": rows}).save_to_disk(tmp_path / "other")
    one, several = str(tmp_path / "one"), str(tmp_path / "several")
    assert find_tables(one) == {"train": Table(one)}
    assert find_tables(several) == {"train": Table(several, "train"), "test": Table(several, "test")}
    with pytest.raises(UserError, match="no split 'train' but main"):
        find_tables(str(tmp_path / "other"))
    (tmp_path / "several" / "dataset_dict.json").write_text(json.dumps(["train"]))
    with pytest.raises(UserError, match=r"dataset_dict\.json cannot be read"):
        find_tables(several)


def test_hub_ids_and_missing_files(tmp_path: Path) -> None:
    assert find_tables("openai/gsm8k", "main") == {"train": Table("openai/gsm8k", "train", "main")}
    for name in ("missing.jsonl", "data/missing.csv", "/no/such/folder", "a b"):
        with pytest.raises(UserError, match="there is no file or folder"):
            find_tables(name)
    with pytest.raises(UserError, match="not of a supported file type"):
        find_tables(str(touch(tmp_path, "rows.pkl") / "rows.pkl"))

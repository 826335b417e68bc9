"""Find the tables of a dataset: a file, a folder of files, a folder written by save_to_disk, or a hub dataset."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reft_pl.data.files import format_of
from reft_pl.errors import UserError, first_line
from reft_pl.resources import HUB_ID

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_SETS = {"train": ("train",), "validation": ("valid", "dev"), "test": ("test",)}
"""The sets of a dataset, and what their files' names contain."""


@dataclass(frozen=True, slots=True)
class Table:
    """A path or hub id, with the split and the configuration if it has several."""

    path: str
    split: str | None = None
    subset: str | None = None


def find_tables(dataset: str, subset: str | None = None) -> dict[str, Table]:
    """Return the tables of a dataset by set: ``train``, and ``validation`` and ``test`` if it has them.

    Args:
        dataset: A file, a folder, or the id of a hub dataset. A hub dataset is assumed to have a split ``train``.
        subset: Configuration of a hub dataset.

    Raises:
        UserError: there is no such file or folder, or its training table is unclear.
    """
    path = Path(dataset)
    if path.is_dir():
        return _saved(path) or _files(path)
    if path.is_file():
        if format_of(path) not in SUFFIXES:
            raise UserError(f"{path} is not of a supported file type: convert it to one of {', '.join(SUFFIXES)}")
        return {"train": Table(dataset)}
    if not HUB_ID.fullmatch(dataset) or format_of(path) in SUFFIXES:
        raise UserError(f"there is no file or folder {dataset!r}: name an existing one, or a hub dataset such as owner/name")
    return {"train": Table(dataset, "train", subset)}


def _saved(folder: Path) -> dict[str, Table] | None:
    """Return the tables of a folder that ``save_to_disk`` wrote; None for any other folder."""
    if (folder / "state.json").is_file():
        return {"train": Table(str(folder))}
    several = folder / "dataset_dict.json"
    if not several.is_file():
        return None
    try:
        splits = list(json.loads(several.read_text(encoding="utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{several} cannot be read ({first_line(error)}): save the dataset again") from None
    found = _by_set(splits)
    if "train" not in found:
        raise UserError(f"{folder} has no split 'train' but {', '.join(map(str, splits))}: rename the training split")
    return {name: Table(str(folder), str(split)) for name, split in found.items()}


def _files(folder: Path) -> dict[str, Table]:
    """Return the tables of a folder with a file for each set, or with a single file."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and format_of(path) in SUFFIXES)
    found = {"train": names[0]} if len(names) == 1 else _by_set(names)
    if "train" not in found:
        has = f"has {', '.join(names[:8])}" if names else f"holds no {', '.join(SUFFIXES)} file"
        raise UserError(f"{folder} {has}: name the file to train on")
    return {name: Table(str(folder / file)) for name, file in found.items()}


def _by_set(names: list[str]) -> dict[str, str]:
    """Return the one name of each set; a set with several names is left out."""
    found = {key: [name for name in names if any(part in str(name).lower() for part in parts)] for key, parts in _SETS.items()}
    return {key: matching[0] for key, matching in found.items() if len(matching) == 1}

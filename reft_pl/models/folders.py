"""Folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder`` to write into; when the block ends well, it takes the name ``folder``.

    A former ``folder`` is moved aside and then deleted, so that whoever is killed at any moment leaves the old content or
    the new, never a mixture. (Between the two renames neither stands under the name; the next call or ``bring_back`` mends it.)
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, former = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    bring_back(folder)
    for leftover in (fresh, former):
        _remove(leftover)
    fresh.mkdir()
    try:
        yield fresh
        if folder.exists():
            folder.rename(former)
        os.replace(fresh, folder)  # noqa: PTH105 (the name says that it replaces)
    finally:
        bring_back(folder)  # where a signal came between the two renames
        _remove(fresh)
        _remove(former)


def bring_back(folder: Path) -> None:
    """Undo what ``replace_folder`` was killed in the middle of: the former content takes its name again."""
    former = folder.with_name(f".{folder.name}.old")
    if former.exists() and not folder.exists():
        with suppress(FileNotFoundError):  # another process has just done so
            former.rename(folder)


def _remove(path: Path) -> None:
    if path.is_file():  # what a folder took the place of need not have been one
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)

"""Atomic replacement of folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty sibling folder to write into, and rename it to ``folder`` if the block succeeds.

    The old ``folder`` is renamed, then deleted, so a process killed at any time leaves the old content or the new, never a
    mixture. Between the two renames ``folder`` does not exist; the next call, or ``bring_back``, restores it.
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
        os.replace(fresh, folder)  # noqa: PTH105 (clearer than Path.replace)
    finally:
        bring_back(folder)  # if a signal arrives between the two renames
        _remove(fresh)
        _remove(former)


def bring_back(folder: Path) -> None:
    """Restore the old folder if a process was killed between the two renames of ``replace_folder``."""
    former = folder.with_name(f".{folder.name}.old")
    if former.exists() and not folder.exists():
        with suppress(FileNotFoundError):  # another process has restored it
            former.rename(folder)


def _remove(path: Path) -> None:
    if path.is_file():  # the replaced path may be a file
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)

"""Recognise files that a download left as a pointer, as a web page, or empty."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reft_pl.errors import UserError

PLACEHOLDERS = {
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
}
"""How placeholders begin, in lower case, and what to do about them."""

_HEAD = 512  # bytes; a pointer is shorter


def kind_of(data: bytes) -> str | None:
    """Return what the beginning of a file shows it to be, and what to do; None if it is not a placeholder."""
    head = data[:_HEAD].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    return next((what for begin, what in PLACEHOLDERS.items() if head.startswith(begin)), None)


def damage(paths: Iterable[Path]) -> UserError | None:
    """Return the error for the first file that is a placeholder or empty; None if there is none.

    Call this to explain a failure, not before: an unused file may be a placeholder.
    """
    for path in paths:
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
        except OSError:
            continue
        what = "an empty file: download it again" if not head else kind_of(head)
        if what is not None:
            return UserError(f"{path} is {what}")
    return None


def damage_in(source: str, *patterns: str) -> UserError | None:
    """Search a model folder's files that match the patterns, in this order; a hub id has no damaged files."""
    folder = Path(source)
    return damage(path for pattern in patterns for path in sorted(folder.glob(pattern))) if folder.is_dir() else None

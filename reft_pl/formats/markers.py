"""Locate the answer in a response: after ``####``, in a code fence, or by a user's regular expression."""

from __future__ import annotations

from collections.abc import Iterator

import regex

HASHES = "####"
SEARCHED = 4096
"""Number of characters at the end of a response that a user's pattern searches."""
SECONDS = 1.0
"""Time limit of a user's pattern per response, in seconds."""
_PYTHON = frozenset({"", "python", "py", "python3"})


def after_hashes(response: str) -> str | None:
    """Return the text after the last ``####`` on its line, or the next line if that is empty; None without a marker.

    Closing markers (``#### 18 ####``) and markers with nothing after them do not count. If no marker counts, the result is an
    empty text.
    """
    below, found = "", False
    for line in reversed(response.split("\n")):
        if HASHES not in line:
            below = line.strip() or below
            continue
        found = True
        stated = next((part for part in reversed(line.split(HASHES)[1:]) if part.strip(" #\t\r")), below)
        if stated:
            return stated.strip(" #\t\r")
    return "" if found else None


def code_blocks(response: str) -> Iterator[str]:
    """Yield the contents of each code fence marked as Python or unmarked; the last one may be unclosed."""
    block: list[str] = []
    inside = is_python = False
    for line in response.splitlines(keepends=True) if "\r" not in response else response.replace("\r\n", "\n").splitlines(True):
        stripped = line.strip(" \t\n")
        if not stripped.startswith("```"):
            block.append(line)
        elif inside:
            if is_python:
                yield "".join(block)
            inside = False
        elif "```" not in stripped[3:] and line.endswith("\n"):
            inside, block = True, []
            is_python = stripped[3:].strip().lower() in _PYTHON
    if inside and is_python:
        yield "".join(block)


class AnswerPattern:
    """A user's regular expression with one group, searched in bounded time.

    It searches only the last ``SEARCHED`` characters of a response, which bounds patterns of quadratic time. ``SECONDS`` bounds
    all others.

    Args:
        pattern: A regular expression in the syntax of ``re``.

    Raises:
        regex.error: the pattern is not a regular expression.
    """

    def __init__(self, pattern: str) -> None:
        self._compiled = regex.compile(pattern)
        self.groups: int = self._compiled.groups

    def last(self, response: str) -> str | None:
        """Return the group of the last match, or None.

        Raises:
            TimeoutError: the search takes longer than ``SECONDS``.
        """
        found: str | None = None
        for match in self._compiled.finditer(response, max(0, len(response) - SEARCHED), timeout=SECONDS):
            found = match[1]
        return found

"""Escapes of text that somebody else wrote: for a terminal, for Markdown, for HTML.

Names, questions, completions, statuses and licenses come from data, models and folders. Whatever prints or writes them for
people takes them through here. Nothing in them moves a cursor, hides, turns direction, or is markup.
"""

from __future__ import annotations

import html
import re

_BACKTICKS = re.compile("`+")
_MARKUP = re.compile(r"[\\`*\[\]<>|&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"^(\d*)([#+\-=.)])")


def printable(text: str) -> str:
    r"""``text`` with everything escaped that a terminal or an editor would obey or hide instead of showing it.

    Line ends and tabs stay. Escape sequences, carriage returns and backspaces, characters that turn the direction of text or
    have no width, and lone surrogates become what Python writes for them (``\x1b``, ``\u202e``).
    """
    return text if _is_plain(text) else "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """``text`` as ``printable`` shows it, its line ends and tabs escaped too: nothing in it begins another line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def html_text(text: str) -> str:
    """Text in HTML, in an element or an attribute."""
    return html.escape(one_line(text))


def markdown_text(text: str) -> str:
    """Text within a line of Markdown, or a cell of a table: nothing in it is markup or HTML."""
    return _MARKUP.sub(r"\\\g<0>", one_line(" ".join(text.split())))


def markdown_line(text: str) -> str:
    """Text as a paragraph of Markdown: as ``markdown_text`` shows it, and it begins no heading or list."""
    return _BLOCK_START.sub(r"\1\\\2", markdown_text(text))


def code_span(text: str) -> str:
    """Code within a line of Markdown. For a cell of a table, ``|`` has to be escaped in addition."""
    line = " ".join(printable(text).split())
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if not line or line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def fenced(text: str, language: str = "") -> str:
    """A code block of Markdown, its fence longer than any run of backticks inside."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{printable(text).rstrip()}\n{fence}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def _is_plain(text: str) -> bool:
    return text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable()


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)

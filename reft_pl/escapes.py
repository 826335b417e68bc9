"""Escape untrusted text for terminals, Markdown and HTML.

Names, questions, completions, statuses and licenses come from data, models and folders. Whatever displays them escapes them
here first: no text can move the cursor, hide, change direction, or act as markup.
"""

from __future__ import annotations

import html
import re

_BACKTICKS = re.compile("`+")
_MARKUP = re.compile(r"[\\`*\[\]<>|&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"^(\d*)([#+\-=.)])")


def escape(text: str) -> str:
    r"""Escape every character that a terminal or editor would interpret or hide instead of showing.

    Newlines and tabs stay. Escape sequences, carriage returns, backspaces, bidirectional and zero-width characters, and lone
    surrogates become their Python escapes (``\x1b``, ``\u202e``).
    """
    return text if _is_plain(text) else "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Escape ``text`` including newlines and tabs, so that it cannot start another line."""
    return escape(text).replace("\n", "\\n").replace("\t", "\\t")


def html_text(text: str) -> str:
    """Escape text for an HTML element or attribute."""
    return html.escape(one_line(text))


def markdown_text(text: str) -> str:
    """Escape text for a line of Markdown or a table cell: nothing in it acts as Markdown or HTML."""
    return _MARKUP.sub(r"\\\g<0>", one_line(" ".join(text.split())))


def markdown_line(text: str) -> str:
    """Escape text for a Markdown paragraph: like ``markdown_text``, and it cannot start a heading or list."""
    return _BLOCK_START.sub(r"\1\\\2", markdown_text(text))


def code_span(text: str) -> str:
    """Format text as inline Markdown code. In a table cell, the caller must also escape ``|``."""
    line = " ".join(escape(text).split())
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if not line or line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Format text as a Markdown code block with a fence longer than any run of backticks inside."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{escape(text).rstrip()}\n{fence}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table; the cells are already Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def _is_plain(text: str) -> bool:
    return text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable()


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)

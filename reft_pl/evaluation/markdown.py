"""Text of strangers in Markdown: shown as it is, whatever it holds."""

from __future__ import annotations

import re

from reft_pl.formats.printable import printable

_BACKTICKS = re.compile("`+")


def fenced(text: str, language: str = "") -> str:
    """A code block, its fence longer than any run of backticks inside."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{printable(text).rstrip()}\n{fence}"


def code_span(text: str) -> str:
    """Code within a line."""
    line = " ".join(printable(text).split())
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)

"""Programs in the form of the paper, and what a conversion comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reft_pl.formats.python_program import docstring


class Unconvertible(Exception):  # noqa: N818 (an outcome, which callers count)
    """A solution that makes no program. The message is one of few reasons, to be counted."""


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment of a program: ``name = text``."""

    name: str
    text: str


def write_program(question: str, lines: Sequence[Line], result: str) -> str:
    """``def solution():`` with the question as docstring, the lines, and ``result``, an expression over them."""
    body = [*(f"{line.name} = {line.text}" for line in lines), f"result = {result}", "return result"]
    return "\n    ".join(["def solution():", f'"""{docstring(question)}"""', *body])

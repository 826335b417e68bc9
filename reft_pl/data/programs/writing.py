"""Write converted solutions as programs in the paper's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reft_pl.formats.python_program import docstring


class Unconvertible(Exception):  # noqa: N818 (an outcome that callers count, not an error)
    """A solution that cannot be converted to a program. The message is one of a few countable reasons."""


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment of a program: ``name = text``."""

    name: str
    text: str


def write_program(question: str, lines: Sequence[Line], result: str) -> str:
    """Write ``def solution():`` with the question as docstring, the lines, and ``result``, an expression over them."""
    body = [*(f"{line.name} = {line.text}" for line in lines), f"result = {result}", "return result"]
    return "\n    ".join(["def solution():", f'"""{docstring(question)}"""', *body])

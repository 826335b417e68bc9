"""Text of strangers, safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with everything escaped that a terminal or an editor would obey or hide instead of showing it.

    Line ends and tabs stay. Escape sequences, carriage returns and backspaces, characters that turn the direction of text, and
    lone surrogates become what Python writes for them (``\x1b``, ``\u202e``).
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """``text`` as ``printable`` shows it, its line ends and tabs escaped too: nothing in it begins a line of output."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")

"""The argument parser of the small commands, which also answers a shell's request for completions."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any


class CommandParser(ArgumentParser):
    """The parser of ``reft-pl COMMAND``. In a shell's request for completions, it prints them and exits."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments, or complete them."""
        complete(self, words=2)
        return super().parse_args(args, namespace)


def complete(parser: ArgumentParser, words: int) -> None:
    """Print completions and exit if this process answers a shell's request; do nothing otherwise.

    Args:
        parser: Parser of what follows the first words.
        words: Number of these words: 1 is ``reft-pl``, 2 is ``reft-pl COMMAND``.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    from argcomplete import autocomplete  # noqa: PLC0415 (optional)

    os.environ["_ARGCOMPLETE"] = str(words)
    autocomplete(parser)

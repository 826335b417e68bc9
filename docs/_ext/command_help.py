"""The command reference: what `--help` prints, of every command."""

from __future__ import annotations

import os
from contextlib import redirect_stdout, suppress
from io import StringIO

from reft_pl.cli import USAGE
from reft_pl.commands import COMMANDS


def commands_page() -> str:
    """Return the overview and the help of every small command as Markdown."""
    os.environ["COLUMNS"] = "100"
    parts = ["## Overview", f"```text\n{USAGE}\n```"]
    parts += [f"## `reft-pl {name}`\n\n```text\n{help_of(name).rstrip()}\n```" for name in sorted([*COMMANDS, "memory"])]
    return "\n\n".join(parts) + "\n"


def help_of(name: str) -> str:
    """Return what a command prints for `--help`."""
    from reft_pl.cli.memory import main as memory  # noqa: PLC0415 (it imports torch, as the pages before it do)

    printed = StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        (memory if name == "memory" else COMMANDS[name])(["--help"])
    return printed.getvalue()

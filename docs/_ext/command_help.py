"""The command reference: what `--help` prints, of every command."""

from __future__ import annotations

import os
from contextlib import redirect_stdout, suppress
from importlib import import_module
from io import StringIO

from reft_pl.cli import OF_THIS_PACKAGE, USAGE
from reft_pl.commands import COMMANDS


def commands_page() -> str:
    """Return the overview and the help of every small command as Markdown."""
    os.environ["COLUMNS"] = "100"
    parts = ["## Overview", f"```text\n{USAGE}\n```"]
    names = sorted([*COMMANDS, *OF_THIS_PACKAGE])
    parts += [f"## `reft-pl {name}`\n\n```text\n{help_of(name).rstrip()}\n```" for name in names]
    return "\n\n".join(parts) + "\n"


def help_of(name: str) -> str:
    """Return what a command prints for `--help`."""
    run = COMMANDS.get(name) or import_module(f"reft_pl.cli.{name}").main
    printed = StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        run(["--help"])
    return printed.getvalue()

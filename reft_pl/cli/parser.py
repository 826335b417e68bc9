"""Configs that mean the shipped ones, and messages of one sentence."""

from __future__ import annotations

import logging
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from reft_pl.cli.mistakes import explain
from reft_pl.resources import find

_DROPPED = re.compile(
    r"Due to class_path change from '(?P<old>[^']+)' to '(?P<new>[^']+)', discarding init_args: \{(?P<settings>.*)\}"
)


class FriendlyParser(LightningArgumentParser):
    """Lightning's parser, except that a mistake is one sentence and exit code 2.

    When a class is switched, settings that only the former class had are dropped. jsonargparse says so to debuggers alone; here
    it is a warning.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        logger = logging.getLogger("reft_pl.cli.parser")
        logger.setLevel(logging.DEBUG)
        if kwargs.get("exit_on_error", True):  # a parser for the user, and none of jsonargparse's own
            logger.filters = [DroppedSettings()]
        super().__init__(*args, **{**kwargs, "logger": logger})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and, for a key or class that does not exist, which is the nearest one that does."""
        if not self.exit_on_error:  # jsonargparse tries alternatives with parsers of its own
            super().error(message, ex)
        print(f"reft-pl: {explain(message, _keys(self))}", file=sys.stderr)
        raise SystemExit(2)


class DroppedSettings(logging.Filter):
    """Lets what is said of dropped settings through, once, as a warning in our words; the rest comes by ``error``."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        message = record.getMessage()
        dropped = _DROPPED.match(message)
        if dropped is None or message in self.said:
            return False
        self.said.add(message)
        old, new = (dropped[side].rsplit(".", 1)[-1] for side in ("old", "new"))
        record.msg, record.args = f"{new} takes the place of {old}, which drops {dropped['settings']}", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def _keys(parser: ArgumentParser) -> Iterator[str]:
    """All keys of a parser and of its subcommands'."""
    for action in parser._actions:
        if isinstance(action.choices, dict):  # the subcommands
            for verb in action.choices.values():
                yield from _keys(verb)
        else:
            yield action.dest


def resolve_configs(args: list[str]) -> list[str]:
    """The command line with ``configs/x.yaml`` replaced by the shipped file where the working folder has none."""
    resolved, previous = [], ""
    for arg in args:
        if previous in ("-c", "--config"):
            resolved.append(find(arg))
        elif arg.startswith("--config="):
            resolved.append("--config=" + find(arg.removeprefix("--config=")))
        else:
            resolved.append(arg)
        previous = arg
    return resolved

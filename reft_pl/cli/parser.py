"""Configs that mean the shipped ones, and messages of one sentence."""

from __future__ import annotations

import logging
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from reft_pl.cli.mistakes import explain
from reft_pl.errors import UserError
from reft_pl.resources import find
from reft_pl.terminal import echo

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
        echo(f"reft-pl: {explain(message, _keys(self))}", lines=True, error=True)
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
        settings = dropped["settings"].replace("Namespace(", "(")
        record.msg, record.args = f"{new} takes the place of {old}, which drops {settings}", ()
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
    """The command line with ``configs/x.yaml`` replaced by the shipped file where the working folder has none.

    A config in which nothing stands, such as an overlay whose lines are all comments, is left out.

    Raises:
        UserError: a config is not a mapping.
    """
    resolved: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, name = arg.partition("=")
        if flag not in ("-c", "--config"):
            resolved.append(arg)
            continue
        given = name if equals else next(rest, None)
        if given is None:
            resolved.append(arg)
        elif not _is_empty(path := find(given)):
            resolved += [f"{flag}={path}"] if equals else [flag, path]
    return resolved


def _is_empty(path: str) -> bool:
    """Whether there is a config at ``path`` that says nothing; what cannot be read is left to the parser, which tells why."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    if content is not None and not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else repr(content)
        raise UserError(f"{path} holds {kind}, but a config is a mapping: write lines of the form `key: value`")
    return content is None

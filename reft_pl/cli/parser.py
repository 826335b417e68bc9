"""Argument parser: shipped configs, one-sentence errors, warnings about dropped settings."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from reft_pl.cli.config_errors import explain
from reft_pl.cli.default_classes import name_default_classes
from reft_pl.cli.import_errors import missing_package
from reft_pl.cli.nulls import refuse_nulls
from reft_pl.cli.setting_types import defaults_of, types_of
from reft_pl.errors import UserError, first_line
from reft_pl.resources import find
from reft_pl.terminal import echo

_DROPPED = re.compile(
    r"Due to class_path change from '(?P<old>[^']+)' to '(?P<new>[^']+)', discarding init_args: \{(?P<settings>.*)\}"
)

_SECTIONS = ("model", "data", "trainer", "checkpoints")


class FriendlyParser(LightningArgumentParser):
    """Lightning's parser, with one-sentence errors and exit code 2.

    When a config switches a class, settings that only the previous class accepted are dropped. jsonargparse logs this at debug
    level; here it is a warning.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        logger = logging.getLogger("reft_pl.cli.parser")
        logger.setLevel(logging.DEBUG)
        if kwargs.get("exit_on_error", True):  # the user's parser, not one internal to jsonargparse
            logger.filters = [DroppedSettings()]
        super().__init__(*args, **{**kwargs, "logger": logger})

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add the settings of a class.

        Where None means a default class, the settings of that class can be set too (``--model.reward.partial``).
        """
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        name_default_classes(self)
        return added

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a command line.

        jsonargparse hands a nested null (``--model.policy.lora null``) to the parser of a class as the text ``None``.

        Raises:
            UserError: A setting that cannot be null is null.
        """
        if args and not self.exit_on_error:
            args = ([re.sub("=None$", "=null", arg) for arg in args[0] or ()], *args[1:])
        config = super().parse_args(*args, **kwargs)
        for action in self._actions:
            for name, verb in action.choices.items() if isinstance(action.choices, dict) else ():
                if config.get(name) is not None:
                    refuse_nulls(config[name].as_dict(), dict(types_of(verb)))
        return config

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Any:
        """Create the objects that a config names.

        Raises:
            UserError: A class needs a package that is not installed.
        """
        try:
            return super().instantiate_classes(*args, **kwargs)
        except (ImportError, ValueError) as error:
            sentence = missing_package(error)
            if sentence is None:
                raise
            raise UserError(sentence) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and the nearest valid key or class, then exit."""
        if not self.exit_on_error:  # jsonargparse tries alternatives with internal parsers
            super().error(message, ex)
        echo(f"reft-pl: {explain(message, self)}", lines=True, error=True)
        raise SystemExit(2)


class DroppedSettings(logging.Filter):
    """Pass only messages about dropped settings, once each and as warnings; ``error`` reports errors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to show the record."""
        message = record.getMessage()
        dropped = _DROPPED.match(message)
        if dropped is None or message in self.seen:
            return False
        self.seen.add(message)
        old, new = (dropped[side].rsplit(".", 1)[-1] for side in ("old", "new"))
        settings = dropped["settings"]
        for key, value in defaults_of(dropped["old"]).items():  # defaults are not worth a warning
            settings = re.sub(rf"(^|, ){re.escape(f'{key!r}: {value!r}')}(?=, '|$)", "", settings)
        settings = settings.removeprefix(", ").replace("Namespace(", "(")
        if not settings:
            return False
        record.msg, record.args = f"{new} takes the place of {old}, which drops {settings}", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def resolve_configs(args: list[str]) -> list[str]:
    """Replace ``configs/x.yaml`` by the shipped file if the working folder has none.

    An empty config, such as an overlay with only comments, is left out.

    Raises:
        UserError: A config is not a mapping.
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
    """Return whether a config is empty. Unreadable files are left to the parser, which reports why."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{path} is not valid YAML{where} ({what}): correct the file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as YAML ({first_line(error)}): correct the file") from None
    if content is not None and not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else repr(content)
        raise UserError(f"{path} holds {kind}, but a config is a mapping: write lines of the form `key: value`")
    for key in _SECTIONS:
        if isinstance(content, dict) and isinstance(content.get(key), (list, int, float)):
            raise UserError(f"{path}: {key} is {content[key]!r}, but it is a section: write settings under it")
    for key in _null_sections(content or {}):
        raise UserError(f"{path}: {key} is null, but it is a section: leave it out, or write settings under it")
    return content is None


def _null_sections(content: dict[Any, Any]) -> Iterator[str]:
    """Yield the sections of a config that are null."""
    yield from (key for key in _SECTIONS if key in content and content[key] is None)
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if not isinstance(value, (dict, list)) or id(value) in seen:  # YAML allows cycles
            continue
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, dict) else ((None, item) for item in value):
            name = path if key is None else f"{path}.{key}".lstrip(".")
            if key in ("class_path", "init_args") and item is None:
                yield name
            waiting.append((name, item))

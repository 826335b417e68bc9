"""Condense jsonargparse's errors to one sentence, with the nearest valid key or class."""

from __future__ import annotations

import re
import sysconfig
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from reft_pl.cli.setting_types import bases, classes, expected, listed, settings_of, types_of

_UNKNOWN_KEY = re.compile(
    r"(?:Option '(?P<option>[\w.]+)' is not accepted"
    r"|unrecognized arguments: --(?P<argument>[\w.+]+)"
    r"|(?:Group '(?P<group>\w+)'|Subcommand '\w+') does not accept option '(?P<nested>[\w.]+)')"
)
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (?P<short>\w+)|module '[\w.]+' has no attribute '(?P<attribute>\w+)'"
)
_REQUIRED = re.compile(r"the following arguments are required: (?:(?:fit|validate|test|predict)\.)?(?P<key>[\w.]+)")
_KEY = re.compile(r'Parser key "(?P<key>[\w.+]+)"')
_OWNER = re.compile(r"given class_path '(?P<path>[\w.]+)'")
_CALLABLE_OWNER = re.compile(r"class_path='(?P<path>[\w.]+)'")
_GIVEN = re.compile(r"(?:Got value|Given value): (?P<value>.*?)(?:\. Got value: Namespace\(.*)?$", re.MULTILINE)
_SECTION = re.compile(r"Parser key \"(?P<key>[\w.]+)\":\s+Unable to load config '(?P<value>.*)'")
_CONFIG = re.compile(r"Parser key \"config\":\s+(?:File does not exist|Path is not a file): '(?P<path>.*)'")
_SETTING = re.compile(r"NestedArg\(key='(?P<key>[\w.]+)', val=(?P<value>.*)\)")
_MOST_NAMED = 12  # keys of a class are listed up to this many
_MOST_SHOWN = 80  # characters of a value


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting that a message is about: its full key, its type (None if unknown), and the index after its last mention."""

    key: str
    hint: Any
    end: int


def explain(message: str, parser: ArgumentParser) -> str:  # noqa: PLR0911 (one return per kind of mistake)
    """Return one sentence for a jsonargparse error.

    Args:
        message: The original message.
        parser: The parser that raised it; its keys and types provide the hints.
    """
    section = _SECTION.search(message)
    if section is not None:
        key, value = section["key"], section["value"]
        return f"{key} is a section, not {value}: leave it out, or give settings such as --{key}.KEY"
    config = _CONFIG.search(message)
    if config is not None:
        return f"there is no config {config['path']}: check the path after --config"
    setting = _setting(message, parser)
    required = _REQUIRED.search(message)
    if required is not None:
        return _missing(message, required)
    wrong_class = unimportable_class(message)
    if wrong_class is not None:
        start, what = wrong_class
        return f"{_keys_before(message, start) or 'the config'} {what}"
    unknown = _UNKNOWN_KEY.search(message)
    if unknown is not None:
        return _unknown_key(message, unknown, list(_keys(parser)))
    name = _UNKNOWN_CLASS.search(message)
    if name is not None and (setting is None or setting.hint is None or bases(setting.hint)):
        return _unknown_class(message, name, setting)
    if setting is not None:
        return _wrong_value(message, setting)
    return " ".join(message.split())


def nearest(name: str, known: list[str]) -> str:
    """Return the nearest match for a misspelt name: ``X``, ``X or Y`` if several are one edit away, empty if none."""
    lower = {candidate.rsplit(".", 1)[-1].lower(): candidate for candidate in reversed(known)}
    leaf = name.rsplit(".", 1)[-1].lower()
    near = [candidate for short, candidate in lower.items() if _within_one_edit(leaf, short)]
    if not near:
        near = [lower[short] for short in get_close_matches(leaf, list(lower), n=1)]
    return " or ".join(near)


def _within_one_edit(one: str, other: str) -> bool:
    """Return whether the words are equal after one insertion, deletion, replacement, or swap of adjacent letters."""
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    left, right = one[start:], other[start:]
    if left[:2] == right[1::-1] and left[2:] == right[2:]:
        return True
    return left[1:] == right[1:] or left[1:] == right or left == right[1:]


def _setting(message: str, parser: ArgumentParser) -> Setting | None:
    """Follow the first, increasingly indented branch of a message from the parser's key to a class's setting."""
    path: list[str] = []
    owner: str | None = None
    types: dict[str, Any] = {}
    hint: Any = None
    indent, end, place = -1, 0, 0
    for line in message.splitlines(keepends=True):
        depth = len(line) - len(line.lstrip())
        found, named = _OWNER.search(line), _KEY.search(line)
        if (found or named) and depth <= indent:
            break
        if found:
            owner, indent = found["path"], depth
        if "expects a function or a callable class" in line:  # an optimizer; its class follows the key
            callable_owner = _CALLABLE_OWNER.search(message, place)
            owner = callable_owner["path"] if callable_owner else owner
        if named:
            types = dict(types_of_all(parser)) if owner is None else settings_of(owner)
            path.append(named["key"])
            hint, indent, end = types.get(named["key"]), depth, place + named.end()
        place += len(line)
    return Setting(".".join(path), hint, end) if path else None


def types_of_all(parser: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a parser and of its subcommands, with its type."""
    yield from types_of(parser)
    for action in parser._actions:
        if isinstance(action.choices, dict):  # the subcommands
            for verb in action.choices.values():
                yield from types_of_all(verb)


def _keys(parser: Any) -> Iterator[str]:
    """Yield every key of a parser and of its subcommands, groups included."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for verb in action.choices.values():
                yield from _keys(verb)
        else:
            yield action.dest


def _missing(message: str, match: re.Match[str]) -> str:
    owners = list(_OWNER.finditer(message, 0, match.start()))
    keys = _keys_before(message, match.start())
    if owners:
        key, name = f"{keys}.{match['key']}", owners[-1]["path"].rsplit(".", 1)[-1]
        return f"{keys or 'the config'} is a {name}, which needs {match['key']}: give --{key}"
    return f"{match['key']} is missing: set it in a config (--config) or give --{match['key']}"


def _unknown_key(message: str, match: re.Match[str], keys: list[str]) -> str:
    before, after = message[: match.start()], message[match.end() :]
    key = match["option"] or match["argument"] or match["nested"]
    owners = [_CALLABLE_OWNER.search(after)] if "expects a function or a callable class" in before else []
    owner = next((found["path"] for found in [*owners, *reversed(list(_OWNER.finditer(before)))] if found), None)
    if owner is None:
        return f"there is no key {key!r}{_hint_in_section(key, keys)}"
    *groups, leaf = key.split(".")
    groups = groups or ([match["group"]] if match["group"] else [])
    prefix = "".join(f"{group}." for group in groups)
    names = [name.removeprefix(prefix) for name in settings_of(owner) if name.startswith(prefix)]
    names = [name for name in dict.fromkeys(name.partition(".")[0] for name in names) if name != "params"]  # an optimizer's
    path = [*(found["key"] for found in _KEY.finditer(before)), *groups]
    near = _nearest_key(leaf, names)
    hint = f"; {owner.rsplit('.', 1)[-1]} takes {', '.join(names)}" if 0 < len(names) <= _MOST_NAMED else ""
    if near:
        hint = f"; did you mean {'.'.join([*path, near])!r}?"
    return f"there is no key {'.'.join([*path, leaf])!r}{hint}"


def _hint_in_section(key: str, keys: list[str]) -> str:
    """The nearest key: of the same section, else by its last part; or what the section takes."""
    section, _, leaf = key.rpartition(".")
    inside = [name for name in keys if section and name.startswith(f"{section}.")]
    near = (
        (_nearest_leaf(leaf, inside) or _nearest_leaf(leaf, [name for name in keys if "." in name], cutoff=0.8))
        if inside
        else _nearest_key(key, keys)
    )
    if near:
        return f"; did you mean {near!r}?"
    names = sorted({name.removeprefix(f"{section}.").partition(".")[0] for name in inside})
    return f"; {section} takes {', '.join(names)}" if 0 < len(names) <= _MOST_NAMED else ""


def _nearest_key(name: str, known: list[str]) -> str | None:
    near = get_close_matches(name, known, n=1)
    return near[0] if near else _nearest_leaf(name.rsplit(".", 1)[-1], known)


def _nearest_leaf(leaf: str, known: list[str], cutoff: float = 0.6) -> str | None:
    """The key with the last part that is nearest to ``leaf``."""
    by_leaf = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(known)}
    near = get_close_matches(leaf, list(by_leaf), n=1, cutoff=cutoff)
    return by_leaf[near[0]] if near else None


def _unknown_class(message: str, match: re.Match[str], setting: Setting | None) -> str:
    name = match["short"] or match["attribute"]
    return f"{_keys_before(message, match.start()) or 'the config'} {no_class(name, setting.hint if setting else None)}"


def no_class(name: str, hint: Any) -> str:
    """Return the predicate for a class that does not exist, with the nearest class that the key accepts."""
    known = classes(hint) if hint is not None else []
    near = nearest(name, known)
    choices = f" one of {listed(known)}, or" if known else ""
    hint = f"; did you mean {near}?" if near else f": give{choices} the full path of a class, as my_file.MyClass"
    return f"names a class {name!r} that does not exist{hint}"


def _wrong_value(message: str, setting: Setting) -> str:
    values = [found["value"] for found in _GIVEN.finditer(message, setting.end)]
    value = values[0].strip() if values else "something else"
    nested = _SETTING.fullmatch(value)
    if nested is not None and setting.key.endswith(nested["key"]):
        value = nested["value"].strip("'")
    elif nested is not None:
        return (
            f"{setting.key}.{nested['key']} is a setting of a class, but {setting.key} names no class: choose one first with "
            f"--{setting.key}, {expected(setting.hint) if setting.hint is not None else 'by its full path'}"
        )
    value = "null" if value == "None" else value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}..."
    if setting.hint is None:
        return f"{setting.key} cannot be {value}: {' '.join(message[setting.end :].split())[:200]}"
    return f"{setting.key} must be {expected(setting.hint)}, and is {value}"


def _keys_before(message: str, end: int) -> str:
    """Return the full key that the message names before index ``end``; empty if none."""
    return ".".join(found["key"] for found in _KEY.finditer(message[:end]))


_DOTTED = r"(?P<path>[A-Za-z_]\w*(?:\.\w+)+)"
_CLASS = re.compile(rf"(?:class_path(?:': | |=)'|Expected a path but ){_DOTTED}")
_STRING = re.compile(rf"(?:val=|\[|, |: )'{_DOTTED}'")
_WRONG_BASE = re.compile(
    r"Import path (?:(?P<path>[\w.]+) )?does not correspond to a subclass of (?P<base>\w+)"
    r"|Expected '(?P<made>[\w.]+)' to be a (?:subclass of|function that returns) <class '(?P<product>\w+)'>"
)


def unimportable_class(message: str) -> tuple[int, str] | None:
    """Explain why a ``class_path`` cannot be imported or has the wrong base class; None if neither is the problem.

    Args:
        message: The message of jsonargparse. It reports a failed import by the exception's text, often without the class, so
            the classes that it names are imported again here.

    Returns:
        Index of the class in the message, and the sentence without its subject.
    """
    named = list(_CLASS.finditer(message))
    if "Got value" not in message:  # a rejected value may contain a dot without being a class
        named += _STRING.finditer(message)
    for match in named:
        wrong = _import_failure(match["path"])
        if wrong is not None:
            return match.start(), wrong
    wrong_base = _WRONG_BASE.search(message)
    if wrong_base is None:
        return None
    start, base = wrong_base.start(), wrong_base["base"] or wrong_base["product"]
    path = (
        wrong_base["path"] or wrong_base["made"] or next((m["path"] for m in reversed(named) if m.start() < start), "a class")
    )
    full = re.search(rf"\b[\w.]+\.{base}\b", message)
    return start, f"names {path}, which is not a {base}: name a class that inherits from {full[0] if full else base}"


def _import_failure(path: str) -> str | None:
    """Explain why the module of a class cannot be imported; None if it can."""
    module = path.rpartition(".")[0]
    top = module.partition(".")[0]
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name == top:
            near = get_close_matches(top, [file.stem for file in Path().glob("*.py")], n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}{path.removeprefix(top)}?" if near else ""
            hint = hint or f"put {top}.py into the working folder, or install its package"
            return f"names {path}, but there is no module {top!r}: {hint}"
        if error.name and module.startswith(error.name):  # `file.Class.Inner`, or a name that is not in the package
            return None
        return _described(path, error)
    except Exception as error:  # running the user's file may raise anything
        return _described(path, error)
    return None


def missing_package(error: BaseException) -> str | None:
    """Return a sentence if creating a class failed because a package is not installed; None for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ImportError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    named = list(_CLASS.finditer(str(error)))
    name = named[0]["path"].rsplit(".", 1)[-1] if named else "a class of the config"
    return f"{name} needs a package that is not installed: {' '.join(str(cause).split()).rstrip('.')}"


def _described(path: str, error: Exception) -> str:
    """Describe the exception, with the line of the user's file that raised it."""
    where = list(_places(error))
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}"
    return f"names {path}, but its file cannot be imported: fix " + (f"{where[-1]} ({what})" if where else f"this {what}")


def _places(error: Exception) -> Iterator[str]:
    """Yield file and line of the frames outside Python and installed packages, outermost first."""
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(("<", *installed, str(Path(__file__).parents[1]))):
            yield f"line {frame.lineno} of {frame.filename}"
    if isinstance(error, SyntaxError) and error.filename:
        yield f"line {error.lineno} of {error.filename}"

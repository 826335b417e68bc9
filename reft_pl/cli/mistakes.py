"""One sentence for what jsonargparse says in many lines: an unknown key or class with the nearest right one, a wrong value."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, get_type_hints

from reft_pl.cli.class_paths import class_that_cannot_be_had

_UNKNOWN_KEY = re.compile(
    r"(?:Option '(?P<option>[\w.]+)' is not accepted"
    r"|unrecognized arguments: --(?P<argument>[\w.+]+)"
    r"|(?:Group '(?P<group>\w+)'|Subcommand '\w+') does not accept option '(?P<nested>[\w.]+)')"
)
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (?P<short>\w+)|module '[\w.]+' has no attribute '(?P<attribute>\w+)'"
)
_WRONG_VALUE = re.compile(r"Expected a <class '(?P<type>(?!NoneType)[\w.]+)'>(?:\. Got value: (?P<value>.*))?")
_KEY = re.compile(r'Parser key "(?P<key>[\w.+]+)"')
_OWNER = re.compile(r"given class_path '(?P<path>[\w.]+)'")
_CALLABLE_OWNER = re.compile(r"class_path='(?P<path>[\w.]+)'")
_MOST_NAMED = 12  # keys of a class are listed up to this many


def explain(message: str, keys: Iterable[str]) -> str:
    """The sentence.

    Args:
        message: What jsonargparse has to say.
        keys: All keys of the parser, dotted.
    """
    wrong_class = class_that_cannot_be_had(message)
    if wrong_class is not None:
        start, what = wrong_class
        return f"{_keys_before(message, start) or 'the config'} {what}"
    for pattern, sentence in ((_UNKNOWN_KEY, _unknown_key), (_UNKNOWN_CLASS, _unknown_class), (_WRONG_VALUE, _wrong_value)):
        match = pattern.search(message)
        if match is not None:
            return sentence(message, match, list(keys))
    return " ".join(message.split())


def _unknown_key(message: str, match: re.Match[str], keys: list[str]) -> str:
    before, after = message[: match.start()], message[match.end() :]
    key = match["option"] or match["argument"] or match["nested"]
    owners = [_CALLABLE_OWNER.search(after)] if "expects a function or a callable class" in before else []
    owner = next((found["path"] for found in [*owners, *reversed(list(_OWNER.finditer(before)))] if found), None)
    if owner is None:
        near = _nearest(key, keys)
        return f"there is no key {key!r}" + (f"; did you mean {near!r}?" if near else "")
    *groups, leaf = key.split(".")
    groups = groups or ([match["group"]] if match["group"] else [])
    names = list(_parameters(owner, groups[-1] if groups else None))
    path = [*(found["key"] for found in _KEY.finditer(before)), *groups]
    near = _nearest(leaf, names)
    hint = f"; {owner.rsplit('.', 1)[-1]} takes {', '.join(names)}" if 0 < len(names) <= _MOST_NAMED else ""
    if near:
        hint = f"; did you mean {'.'.join([*path, near])!r}?"
    return f"there is no key {'.'.join([*path, leaf])!r}{hint}"


def _unknown_class(message: str, match: re.Match[str], keys: list[str]) -> str:
    name = match["short"] or match["attribute"]
    near = _nearest(name, list(_classes()))
    hint = f"; did you mean {near}?" if near else ": give the full path of a class, as my_file.MyClass"
    where = _keys_before(message, match.start()) or "the config"
    return f"{where} names a class {name!r} that does not exist{hint}"


def _wrong_value(message: str, match: re.Match[str], keys: list[str]) -> str:
    key = _keys_before(message, match.start())
    given = re.findall(r"Given value: (.*)", message)
    value = match["value"] or (given[0] if given else "something else")
    return f"{key or 'a key'} must be of type {match['type'].rsplit('.', 1)[-1]}, and is {value.strip()}"


def _keys_before(message: str, end: int) -> str:
    """The full key that the message is about up to a place in it; empty where it names none."""
    return ".".join(found["key"] for found in _KEY.finditer(message[:end]))


def _parameters(class_path: str, group: str | None) -> Iterator[str]:
    """Arguments of a class, or of the group of settings that one of its arguments is."""
    module, _, name = class_path.rpartition(".")
    try:
        cls: Any = getattr(import_module(module), name)
        if group:
            cls = get_type_hints(cls.__init__).get(group)
    except (ImportError, AttributeError, ValueError, NameError, TypeError):
        return
    if is_dataclass(cls):
        yield from (field.name for field in fields(cls))
        return
    for base in getattr(cls, "__mro__", ()):
        if "__init__" in base.__dict__:
            parameters = list(inspect.signature(base).parameters.values())
            yield from (p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "params")
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return


def _classes() -> Iterator[str]:
    """Names by which configs know the classes of this package and its plug-ins."""
    for module in (
        "modules",
        "data.datamodule",
        "formats",
        "rollout.inprocess",
        "sandbox.cpython",
        "models.optim",
    ):
        yield from (name for name in vars(import_module(f"reft_pl.{module}")) if name[0].isupper())
    yield from (f"reft_pl_callbacks.{name}" for name in import_module("reft_pl_callbacks").__all__)


def _nearest(name: str, known: list[str]) -> str | None:
    near = get_close_matches(name, known, n=1)
    if near:
        return near[0]
    leaf = name.rsplit(".", 1)[-1]
    by_leaf = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(known)}
    near = get_close_matches(leaf, list(by_leaf), n=1)
    return by_leaf[near[0]] if near else None

"""Condense jsonargparse's errors to one sentence, with the nearest valid key or class."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from reft_pl.cli.config_items import item_of
from reft_pl.cli.import_errors import unimportable_class
from reft_pl.cli.setting_types import bases, classes, expected, listed, settings_of, takes_function, types_of

_UNKNOWN_KEY = re.compile(
    r"(?:Option '(?P<option>[\w.]+)' is not accepted"
    r"|unrecognized arguments: --(?P<argument>[\w.+]+)"
    r"|(?:Group '(?P<group>\w+)'|Subcommand '\w+') does not accept option '(?P<nested>[\w.]+)')"
)
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (?P<short>\w+)|module '(?P<module>[\w.]+)' has no attribute '(?P<attribute>\w+)'"
)
_REQUIRED = re.compile(r"the following arguments are required: (?:(?:fit|validate|test|predict)\.)?(?P<key>[\w.]+)")
_KEY = re.compile(r'Parser key "(?P<key>[\w.+]+)"')
_OWNER = re.compile(r"given class_path '(?P<path>[\w.]+)'")
_CALLABLE_OWNER = re.compile(r"class_path='(?P<path>[\w.]+)'")
_GIVEN = re.compile(r"(?:Got value|Given value): (?P<value>.*?)(?:\. Got value: Namespace\(.*)?$", re.MULTILINE)
_SECTION = re.compile(r"Parser key \"(?P<key>[\w.]+)\":\s+Unable to load config '(?P<value>.*)'")
_CONFIG = re.compile(r"Parser key \"config\":\s+(?:File does not exist|Path is not a file): '(?P<path>.*)'")
_SETTING = re.compile(r"NestedArg\(key='(?P<key>[\w.]+)', val=(?P<value>.*)\)")
_LINKED = re.compile(
    r"argument (?P<source>[\w.]+) --> (?P<target>[\w.]+):|Linked \"(?P<linked>[\w.]+)\" must be given via \"(?P<via>[\w.]+)\""
)
_MOST_NAMED = 12  # keys of a class are listed up to this many
_MOST_SHOWN = 80  # characters of a value
_SQUEEZED = re.compile(r".*\{\w+:[^\s'\"]")  # {key:value} is one key to YAML


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting that a message is about: its full key, its type (None if unknown), and the index after its last mention."""

    key: str
    hint: Any
    end: int
    first: str
    """The key of the parser, without the settings of a class."""
    first_hint: Any


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
    linked = _LINKED.search(message)
    if linked is not None:
        source = (linked["source"] or linked["via"]).replace(".init_args", "")
        return f"{linked['target'] or linked['linked']} always equals {source}: set --{source} instead"
    setting = _setting(message, parser)
    required = _REQUIRED.search(message)
    if required is not None:
        names = [part for owner in _OWNER.finditer(message) for part in (owner["path"], owner["path"].rsplit(".", 1)[-1])]
        return _with_item(_missing(message, required), message, setting, *names)
    wrong_class = unimportable_class(message)
    if wrong_class is not None:
        start, what = wrong_class
        sentence = f"{_keys_before(message, start) or 'the config'} {what}"
        return _with_item(sentence, message, setting, what.removeprefix("names ").partition(",")[0])
    unknown = _UNKNOWN_KEY.search(message)
    if unknown is not None:
        sentence = _unknown_key(message, unknown, list(_keys(parser)))
        return _with_item(sentence, message, setting, (unknown["option"] or "").partition(".")[0])
    name = _UNKNOWN_CLASS.search(message)
    if name is not None and (setting is None or setting.hint is None or bases(setting.hint)):
        wrong = name["short"] or f"{name['module']}.{name['attribute']}"
        return _with_item(_unknown_class(message, name, setting), message, setting, wrong)
    if setting is not None:
        return _wrong_value(message, setting)
    return " ".join(message.split())


def _with_item(sentence: str, message: str, setting: Setting | None, *wrong: str) -> str:
    """Name the faulty item in a sentence that names only its list or mapping; no option sets a single item."""
    if setting is None:
        return sentence
    item = next(filter(None, (item_of(message, setting.first, setting.first_hint, text) for text in wrong)), None)
    return sentence if item is None else sentence.replace("give --", "set ").replace(setting.first, item.key)


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
    """Follow the first, ever more indented branch of a message from the parser's key to a class's setting."""
    path: list[str] = []
    owner: str | None = None
    types: dict[str, Any] = {}
    hint: Any = None
    first_hint: Any = None
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
            first_hint = hint if len(path) == 1 else first_hint
        place += len(line)
    return Setting(".".join(path), hint, end, path[0], first_hint) if path else None


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
    """Suggest the nearest key of the same section, else the nearest by last part, else what the section takes."""
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
    """Return the sentence's predicate for a class that does not exist, with the nearest class that the key accepts."""
    known = classes(hint) if hint is not None else []
    near = nearest(name, known)
    choices = f" one of {listed(known)}, or" if known else ""
    kind = "class or function" if hint is not None and takes_function(hint) else "class"
    hint = f"; did you mean {near}?" if near else f": give{choices} the full path of a {kind}, as my_file.MyClass"
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
    item = item_of(message, setting.first, setting.first_hint, value)
    if item is not None:
        whole = setting.key == setting.first
        setting = replace(
            setting, key=item.key + setting.key.removeprefix(setting.first), hint=item.hint if whole else setting.hint
        )
    squeezed = "; in braces YAML wants a space after each colon: {key: value}" if _SQUEEZED.match(value) else ""
    value = "null" if value == "None" else value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}..."
    if setting.hint is None:
        return f"{setting.key} cannot be {value}: {' '.join(message[setting.end :].split())[:200]}"
    return f"{setting.key} must be {expected(setting.hint)}, and is {value}{squeezed}"


def _keys_before(message: str, end: int) -> str:
    """Return the full key that the message names before index ``end``; empty if none."""
    return ".".join(found["key"] for found in _KEY.finditer(message[:end]))

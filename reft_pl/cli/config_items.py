"""Find the item of a list or mapping that a jsonargparse error is about; the message names only the list or mapping."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from reft_pl.cli.setting_types import members

_GIVEN = re.compile(r"^\s*Given value: (?P<value>[\[{].*[\]}])\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Item:
    """An item: its full key (``data.test.ordinary``, ``data.train[0]``), and its type."""

    key: str
    hint: Any


def item_of(message: str, key: str, hint: Any, wrong: str) -> Item | None:
    """Find the item that contains the error.

    Args:
        message: The message of jsonargparse, which ends with the value of the whole list or mapping.
        key: The key of the list or mapping.
        hint: Its type.
        wrong: The wrong value as text, the name of a class that does not exist, or a setting that a class does not accept.

    Returns:
        None if the key takes neither a list nor a mapping, or no item contains the error.
    """
    given = list(_GIVEN.finditer(message))
    try:
        value = _value(ast.parse(given[-1]["value"], mode="eval").body) if given else None
    except (SyntaxError, ValueError):  # text that is not a Python literal: truncated, or with an object
        return None
    kind = next((part for part in members(hint) if get_origin(part) is type(value)), None)
    if kind is None or not isinstance(value, (list, dict)):
        return None
    names = [f".{name}" for name in value] if isinstance(value, dict) else [f"[{index}]" for index in range(len(value))]
    items = value.values() if isinstance(value, dict) else value
    for name, item in zip(names, items, strict=True):
        if wrong in _texts(item):
            return Item(f"{key}{name}", get_args(kind)[-1])
    return None


def _value(node: ast.expr) -> Any:
    """Evaluate a literal, with jsonargparse's namespaces as mappings."""
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(item) for key, item in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Call):
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    return ast.literal_eval(node)


def _texts(value: Any) -> Iterator[str]:
    """Yield a value as text, and the keys and values within it."""
    yield str(value)
    for key, item in value.items() if isinstance(value, dict) else ():
        yield str(key)
        yield from _texts(item)

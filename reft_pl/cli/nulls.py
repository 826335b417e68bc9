"""Reject null where a setting needs a value; jsonargparse accepts it everywhere, and the constructor fails later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reft_pl.cli.setting_types import accepts_null, expected, listed, settings_of
from reft_pl.errors import UserError


def refuse_nulls(config: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Check a parsed config for nulls.

    Args:
        config: Nested mappings; a class is a mapping of ``class_path`` and ``init_args``.
        types: Type of each key, by dotted name.

    Raises:
        UserError: A setting or group that cannot be null is null.
    """
    for key, sentence in _nulls(config, types, ""):
        raise UserError(f"{key} is null, but {sentence}: leave it out to keep the default, or give a value")


def _nulls(config: Mapping[str, Any], types: Mapping[str, Any], prefix: str, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key with an invalid null, and what the key takes."""
    for name, value in config.items():
        dotted, shown = f"{prefix}{name}", f"{path}{name}"
        group = [key.removeprefix(f"{dotted}.") for key in types if key.startswith(f"{dotted}.")]
        if dotted in types:
            if value is None and not accepts_null(types[dotted]):
                yield shown, f"must be {expected(types[dotted])}"
            yield from _within(value, shown)
        elif group and value is None:
            yield shown, f"is a group of settings ({listed(group)})"
        elif group and isinstance(value, Mapping):
            yield from _nulls(value, types, f"{dotted}.", f"{shown}.")


def _within(value: Any, shown: str) -> Iterator[tuple[str, str]]:
    """Yield the nulls within a class, or within the classes of a list or mapping."""
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        yield from _nulls(value.get("init_args") or {}, settings_of(value["class_path"]), "", f"{shown}.")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _within(item, f"{shown}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _within(item, shown)

"""CoT formats: how problems become prompts and targets, and how responses become programs and answers."""

from __future__ import annotations

from collections.abc import Mapping

from reft_pl.errors import UserError
from reft_pl.formats.base import CoTFormat
from reft_pl.formats.chat import Chat
from reft_pl.formats.natural_language import NaturalLanguage
from reft_pl.formats.python_program import PythonProgram

__all__ = ["Chat", "CoTFormat", "NaturalLanguage", "PythonProgram", "format_from_settings"]

FORMATS: dict[str, type[CoTFormat]] = {cot_format.__name__: cot_format for cot_format in (Chat, NaturalLanguage, PythonProgram)}
"""The built-in formats, by class name; a file may name only these."""


def format_from_settings(settings: Mapping[str, object], chosen: type[CoTFormat] | None = None) -> CoTFormat:
    """Build the format that ``CoTFormat.settings`` describes: ``{"class_path": ..., "init_args": {...}}``.

    The class path is looked up among the built-in formats and never imported, because the file may come from a third party.

    Args:
        settings: Class path (the class name alone, or prefixed with ``reft_pl.formats.``) and constructor arguments.
        chosen: A class named by the user; it replaces the class that the settings name.

    Raises:
        UserError: the settings name no built-in format, or the format does not accept these arguments.
    """
    path = settings.get("class_path")
    kind = chosen or _built_in(path)
    arguments = settings.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"the init_args of the format {path!r} must be a mapping, not {type(arguments).__name__}")
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"the format {path!r} does not accept these settings: {error}") from None


def _built_in(path: object) -> type[CoTFormat]:
    package, _, name = str(path).rpartition(".")
    kind = FORMATS.get(name)
    if kind is None or package not in ("", "reft_pl.formats", kind.__module__):
        raise UserError(
            f"the format {path!r} is not built into reft-pl ({', '.join(FORMATS)}), and a model's settings may not import one: "
            "name your own format with --format my_file.MyFormat"
        )
    return kind

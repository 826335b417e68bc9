"""Rebuilding a form from the settings that stand beside an exported model."""

from __future__ import annotations

from collections.abc import Mapping

from reft_pl.errors import UserError
from reft_pl.formats.base import CoTFormat
from reft_pl.formats.chat import Chat
from reft_pl.formats.natural_language import NaturalLanguage
from reft_pl.formats.python_program import PythonProgram

FORMS: dict[str, type[CoTFormat]] = {form.__name__: form for form in (Chat, NaturalLanguage, PythonProgram)}
"""The forms that a file may name."""


def format_from_settings(settings: Mapping[str, object], form: type[CoTFormat] | None = None) -> CoTFormat:
    """Build the form that ``CoTFormat.settings`` described: ``{"class_path": ..., "init_args": {...}}``.

    The class path is looked up among our own forms and never imported: settings come from files of other people.

    Args:
        settings: By the form's name alone, or with ``reft_pl.formats.`` before it.
        form: A class that the user named, which takes the arguments in place of the one that the settings name.

    Raises:
        UserError: the settings name none of our forms, or the form does not take these arguments.
    """
    path = settings.get("class_path")
    kind = form or _own_form(path)
    arguments = settings.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"the init_args of the prompt form {path!r} must be a mapping, not {type(arguments).__name__}")
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"the prompt form {path!r} does not take these settings: {error}") from None


def _own_form(path: object) -> type[CoTFormat]:
    package, _, name = str(path).rpartition(".")
    kind = FORMS.get(name)
    if kind is None or package not in ("", "reft_pl.formats", kind.__module__):
        raise UserError(
            f"the prompt form {path!r} cannot be imported from a file, and is no prompt form of reft-pl ({', '.join(FORMS)}): "
            "name a form of your own with --format my_file.MyForm"
        )
    return kind

"""Rebuilding a form from the settings that stand beside an exported model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from reft_pl.errors import UserError
from reft_pl.formats.base import CoTFormat


def format_from_settings(settings: Mapping[str, object]) -> CoTFormat:
    """Build the form that ``CoTFormat.settings`` described: ``{"class_path": ..., "init_args": {...}}``.

    Raises:
        UserError: the class cannot be imported, is no ``CoTFormat``, or does not take these arguments.
    """
    path = str(settings.get("class_path", ""))
    arguments = settings.get("init_args") or {}
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "reft_pl.formats"), name)
    except (ImportError, AttributeError):
        raise UserError(f"the prompt form {path!r} cannot be imported; put its module on the Python path") from None
    if not (isinstance(kind, type) and issubclass(kind, CoTFormat)):
        raise UserError(f"{path!r} is no prompt form: it must name a subclass of reft_pl.formats.base.CoTFormat")
    if not isinstance(arguments, Mapping):
        raise UserError(f"the init_args of the prompt form {path!r} must be a mapping, not {type(arguments).__name__}")
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"the prompt form {path!r} does not take these settings: {error}") from None

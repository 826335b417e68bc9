"""CoT formats: how problems become prompts and targets, and how responses become programs and answers."""

from reft_pl.formats.base import CoTFormat
from reft_pl.formats.chat import Chat
from reft_pl.formats.from_settings import format_from_settings
from reft_pl.formats.natural_language import NaturalLanguage
from reft_pl.formats.python_program import PythonProgram

__all__ = ["Chat", "CoTFormat", "NaturalLanguage", "PythonProgram", "format_from_settings"]

"""Sphinx extension: writes the generated parts of the reference, and adapts docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_help import commands_page
from config_keys import configuration_page
from sphinx.application import Sphinx


def write_pages(app: Sphinx) -> None:
    """Write `_build/generated/*.md`, which pages of the reference include."""
    folder = Path(app.srcdir) / "_build" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("configuration", configuration_page()), ("commands", commands_page())):
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def escape_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape bars in docstrings, which mean absolute values there and substitutions in reStructuredText."""
    lines[:] = [re.sub(r"(``[^`]*``)|\|", lambda match: match[1] or r"\|", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

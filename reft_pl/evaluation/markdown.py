"""Text of strangers in Markdown: shown as it is, whatever it holds."""

from reft_pl.escapes import code_span, fenced, markdown_text
from reft_pl.escapes import markdown_table as table

__all__ = ["code_span", "fenced", "markdown_text", "table"]

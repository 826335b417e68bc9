"""Text of strangers, safe to show."""

from reft_pl.escapes import one_line, printable

__all__ = ["one_line", "printable"]

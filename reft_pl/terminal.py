"""Print to standard output and standard error, and escape what is logged there."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from reft_pl.escapes import escape, one_line


def echo(text: object = "", *, lines: bool = False, error: bool = False) -> None:
    """Print text with its control characters escaped.

    Args:
        text: The object to print, converted with ``str``.
        lines: Keep newlines and tabs instead of escaping them.
        error: Print to standard error.
    """
    stream = sys.stderr if error else sys.stdout
    shown = escape(str(text)) if lines else one_line(str(text))
    print(
        shown.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"), file=stream, flush=True
    )


def escape_logs() -> None:
    """Escape control characters in every log message and warning of this process. Tracebacks are unchanged."""
    former = logging.getLogRecordFactory()
    if not isinstance(former, _Factory):
        logging.setLogRecordFactory(_Factory(former))
    if warnings.formatwarning is not _format_warning:
        warnings.formatwarning = _format_warning


class _Factory:
    """Log record factory that escapes messages with control characters."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # the handler reports arguments that do not match the message
            return record
        if escape(message) != message:
            record.msg, record.args = escape(message), ()
        return record


_plain_warning = warnings.formatwarning


def _format_warning(*args: Any, **kwargs: Any) -> str:
    return escape(_plain_warning(*args, **kwargs))

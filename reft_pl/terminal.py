"""Printing: the one place that writes to standard output and standard error, and what is logged on the way there."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from reft_pl.escapes import one_line, printable


def echo(text: object = "", *, lines: bool = False, error: bool = False) -> None:
    """Print a line, its control characters escaped.

    Args:
        text: What to print; what ``str`` makes of it.
        lines: Its own line ends are meant, too.
        error: Print on standard error.
    """
    stream = sys.stderr if error else sys.stdout
    shown = printable(str(text)) if lines else one_line(str(text))
    print(
        shown.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"), file=stream, flush=True
    )


def escape_logs() -> None:
    """Escape control characters in all messages that this process logs and in all warnings. Tracebacks stay as they are."""
    former = logging.getLogRecordFactory()
    if not isinstance(former, _Factory):
        logging.setLogRecordFactory(_Factory(former))
    if warnings.formatwarning is not _format_warning:
        warnings.formatwarning = _format_warning


class _Factory:
    """Makes log records, the message of which is one line where it holds what has to be escaped."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # whoever handles the record reports arguments that do not fit
            return record
        if printable(message) != message:
            record.msg, record.args = printable(message), ()
        return record


_plain_warning = warnings.formatwarning


def _format_warning(*args: Any, **kwargs: Any) -> str:
    return printable(_plain_warning(*args, **kwargs))

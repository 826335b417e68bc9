"""User-facing errors, and helpers that quote third-party exceptions."""


class UserError(Exception):
    """Bad input, described in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence without a traceback and exits with code 2. Any other exception that escapes is a bug
    and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type name if the message is empty."""
    return (str(error).strip().splitlines() or [""])[0].rstrip(".") or type(error).__name__


def described(error: BaseException) -> str:
    """Return the exception's type and first line, for messages that mean little alone (``KeyError: 'exp_avg'``)."""
    kind, line = type(error).__name__, first_line(error)
    return line if line == kind else f"{kind}: {line}"


def of_files(error: BaseException | None) -> bool:
    """Return whether the error is a failed file write, which torch and tokenizers report as other types.

    A missing file does not count.
    """
    if error is None or isinstance(error, FileNotFoundError):
        return False
    text = str(error)
    return isinstance(error, OSError) or "iostream error" in text or "(os error " in text or of_files(error.__context__)

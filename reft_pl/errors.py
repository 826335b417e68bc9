"""The one exception for mistakes that the person at the keyboard can mend, and how others are told of in it."""


class UserError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2. Anything else that escapes is a defect of ours and
    keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """The message of somebody else's exception without what follows its first line; its kind where it has none."""
    return (str(error).strip().splitlines() or [""])[0].rstrip(".") or type(error).__name__


def told(error: BaseException) -> str:
    """The same after its kind, where a message alone says too little (``KeyError: 'exp_avg'``)."""
    kind, line = type(error).__name__, first_line(error)
    return line if line == kind else f"{kind}: {line}"


def of_files(error: BaseException | None) -> bool:
    """Whether a file could not be written, which torch and tokenizers report in other types. A missing file does not count."""
    if error is None or isinstance(error, FileNotFoundError):
        return False
    said = str(error)
    return isinstance(error, OSError) or "iostream error" in said or "(os error " in said or of_files(error.__context__)

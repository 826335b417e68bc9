"""The one exception for mistakes that the person at the keyboard can mend, and how others are told of in it."""


class UserError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2. Anything else that escapes is a defect of ours and
    keeps its traceback.
    """


def told(error: BaseException) -> str:
    """An exception of somebody else in one line, for a sentence of ours."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2. Anything else that escapes is a defect of ours and
    keeps its traceback.
    """

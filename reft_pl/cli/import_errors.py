"""Explain why a class that a config names cannot be imported."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

_DOTTED = r"(?P<path>[A-Za-z_]\w*(?:\.\w+)+)"
_CLASS = re.compile(rf"(?:class_path(?:': | |=)'|Expected a path but ){_DOTTED}")
_STRING = re.compile(rf"(?:val=|\[|, |: )'{_DOTTED}'")
_WRONG_BASE = re.compile(
    r"Import path (?:(?P<path>[\w.]+) )?does not correspond to a subclass of (?P<base>\w+)"
    r"|Expected '(?P<made>[\w.]+)' to be a (?:subclass of|function that returns) <class '(?P<product>\w+)'>"
)
_ANY_FUNCTION = "Callable[..., typing.Any] expects a function"


def unimportable_class(message: str) -> tuple[int, str] | None:
    """Explain why a ``class_path`` cannot be imported or has the wrong base class; None if neither is the problem.

    Args:
        message: The message of jsonargparse. It reports a failed import by the exception's text, often without the class, so
            the classes that it names are imported again here.

    Returns:
        Index of the class in the message, and the sentence without its subject.
    """
    named = list(_CLASS.finditer(message))
    if "Got value" not in message:  # a rejected value may contain a dot without being a class
        named += _STRING.finditer(message)
    for match in named:
        wrong = _import_failure(match["path"])
        if wrong is not None:
            return match.start(), wrong
    wrong_base = _WRONG_BASE.search(message)
    if wrong_base is None:
        return None
    start, base = wrong_base.start(), wrong_base["base"] or wrong_base["product"]
    path = (
        wrong_base["path"] or wrong_base["made"] or next((m["path"] for m in reversed(named) if m.start() < start), "a class")
    )
    full = re.search(rf"\b[\w.]+\.{base}\b", message)
    function = ", or a function" if _ANY_FUNCTION in message else ""
    return start, f"names {path}, which is not a {base}: name a class that inherits from {full[0] if full else base}{function}"


def _import_failure(path: str) -> str | None:
    """Explain why the module of a class cannot be imported; None if it can."""
    module = path.rpartition(".")[0]
    top = module.partition(".")[0]
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name == top:
            near = get_close_matches(top, [file.stem for file in Path().glob("*.py")], n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}{path.removeprefix(top)}?" if near else ""
            hint = hint or f"put {top}.py into the working folder, or install its package"
            return f"names {path}, but there is no module {top!r}: {hint}"
        if error.name and module.startswith(error.name):  # `file.Class.Inner`, or a name that is not in the package
            return None
        return _described(path, error)
    except Exception as error:  # running the user's file may raise anything
        return _described(path, error)
    return None


def missing_package(error: BaseException) -> str | None:
    """Return a sentence if creating a class failed because a package is not installed; None for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ImportError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    named = list(_CLASS.finditer(str(error)))
    name = named[0]["path"].rsplit(".", 1)[-1] if named else "a class of the config"
    return f"{name} needs a package that is not installed: {' '.join(str(cause).split()).rstrip('.')}"


def _described(path: str, error: Exception) -> str:
    """Describe the exception, with the line of the user's file that raised it."""
    where = list(_places(error))
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}"
    return f"names {path}, but its file cannot be imported: fix " + (f"{where[-1]} ({what})" if where else f"this {what}")


def _places(error: Exception) -> Iterator[str]:
    """Yield file and line of the frames outside Python and installed packages, outermost first."""
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(("<", *installed, str(Path(__file__).parents[1]))):
            yield f"line {frame.lineno} of {frame.filename}"
    if isinstance(error, SyntaxError) and error.filename:
        yield f"line {error.lineno} of {error.filename}"

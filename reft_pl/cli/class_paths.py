"""One sentence for a class of the user's that cannot be had: its file is not there or does not import, its base is another."""

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


def class_that_cannot_be_had(message: str) -> tuple[int, str] | None:
    """What is wrong with a class that the message is about, after the place where it stands there; None where nothing is.

    Args:
        message: What jsonargparse has to say. It tells a failed import by the exception's text alone, often without the class,
            so the classes that the message names are imported once more here.

    Returns:
        Index into the message, and the sentence without its subject.
    """
    named = list(_CLASS.finditer(message))
    if "Got value" not in message:  # else it is about a number or a word, which may well have a dot in it
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
    return start, f"names {path}, which is no {base}: name a class that inherits from {full[0] if full else base}"


def _import_failure(path: str) -> str | None:
    """What is wrong with the module that a class is said to be in; None where it can be imported."""
    module = path.rpartition(".")[0]
    top = module.partition(".")[0]
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name == top:
            near = get_close_matches(top, [file.stem for file in Path().glob("*.py")], n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}{path.removeprefix(top)}?" if near else ""
            hint = hint or f"put {top}.py into the folder that you run in, or install the package that it is in"
            return f"names {path}, but there is no module {top!r}: {hint}"
        if error.name and module.startswith(error.name):  # `file.Class.Inner`, or a name that the package does not have
            return None
        return _told(path, error)
    except Exception as error:  # whatever the user's file does when it is run
        return _told(path, error)
    return None


def missing_package(error: BaseException) -> str | None:
    """Return a sentence if making a class failed because a package is not installed; None for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ImportError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    named = list(_CLASS.finditer(str(error)))
    name = named[0]["path"].rsplit(".", 1)[-1] if named else "a class of the config"
    return f"{name} needs a package that is not installed: {' '.join(str(cause).split()).rstrip('.')}"


def _told(path: str, error: Exception) -> str:
    """The exception with the line of the user's own files that it comes from."""
    where = list(_places(error))
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}"
    return f"names {path}, whose file cannot be imported: mend " + (f"{where[-1]} ({what})" if where else f"this {what}")


def _places(error: Exception) -> Iterator[str]:
    """File and line of the frames that are neither Python's nor an installed package's, outermost first."""
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(("<", *installed, str(Path(__file__).parents[1]))):
            yield f"line {frame.lineno} of {frame.filename}"
    if isinstance(error, SyntaxError) and error.filename:
        yield f"line {error.lineno} of {error.filename}"

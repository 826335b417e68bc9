"""Inspect settings: the arguments of a class, the values that a key accepts, the classes that it can name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

_MOST_NAMED = 12  # values and classes are listed up to this many
_SHIPPED = ("reft_pl_callbacks",)
"""Modules with classes that configs name by full path; nothing else imports them."""


def settings_of(class_path: str) -> dict[str, Any]:
    """Return the types of a class's settings by name; nested settings have dotted names (``policy.dtype``).

    Args:
        class_path: Full path of the class. Empty result if it cannot be imported.
    """
    parser = _parser_of(class_path)
    return {} if parser is None else dict(types_of(parser))


def defaults_of(class_path: str) -> dict[str, Any]:
    """Return the defaults of a class's settings by name; empty if it cannot be imported."""
    parser = _parser_of(class_path)
    return {} if parser is None else {action.dest: action.default for action in parser._actions}


def _parser_of(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
    except Exception:  # a user's module may raise anything; the caller reports it
        return None
    return parser


def types_of(parser: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a parser with its type."""
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if hint is not None and not action.dest.endswith(".help"):
            yield action.dest, hint


def members(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, or the type itself; strip ``Annotated``."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from members(part)
    else:
        yield hint


def accepts_null(hint: Any) -> bool:
    """Whether a key of this type may be null."""
    return any(part in (None, NoneType, Any) for part in members(hint))


def takes_function(hint: Any) -> bool:
    """Whether a key of this type takes any function, by its full path."""
    return any(get_origin(part) is Callable and not bases(part) for part in members(hint))


def bases(hint: Any) -> list[type]:
    """Return the classes that a key accepts subclasses of, including within lists, mappings and callable return types."""
    found: list[type] = []
    for part in members(hint):
        origin, arguments = get_origin(part), get_args(part)
        if origin is Callable:
            found += bases(arguments[-1])
        elif origin is not None and origin is not Literal:
            found += [base for argument in arguments for base in bases(argument)]
        elif (
            isinstance(part, type)
            and part.__module__.partition(".")[0] not in sys.stdlib_module_names
            and not is_dataclass(part)
        ):
            found.append(part)
    return list(dict.fromkeys(found))


def classes(hint: Any) -> list[str]:
    """Return the names of the classes that a key accepts: short names where configs allow them, else full paths."""
    known = {name: cls.__name__ for base in bases(hint) for name, cls in _concrete(base)}
    for module in _SHIPPED:
        import_module(module)
    later = {name: name for base in bases(hint) for name, cls in _concrete(base)}
    named = later | {name: short for name, short in known.items() if not name.startswith("reft_pl_callbacks.")}
    return sorted({*named.values()})


def _concrete(base: type) -> Iterator[tuple[str, type]]:
    """Yield the full name and class of every public, concrete subclass of ``base``."""
    waiting, seen = [base], set()
    while waiting:
        cls = waiting.pop()
        if cls in seen:
            continue
        seen.add(cls)
        waiting += type.__subclasses__(cls)
        public = not cls.__name__.startswith("_") and getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls
        if public and not inspect.isabstract(cls):
            yield _importable(cls), cls


def _importable(cls: type) -> str:
    """Return the shortest module path that exposes the class."""
    parts = cls.__module__.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        if getattr(sys.modules.get(module), cls.__name__, None) is cls:
            return f"{module}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"


def expected(hint: Any) -> str:
    """Describe the values that a key takes: ``one of 'constant', 'linear'``, ``of type int``, ``a list``."""
    literals = [value for part in members(hint) if get_origin(part) is Literal for value in get_args(part)]
    words = [f"one of {listed(map(repr, literals))}"] if literals else []
    words += [_word(part) for part in members(hint) if part is not NoneType and get_origin(part) is not Literal]
    return " or ".join(dict.fromkeys(words))


def _word(part: Any) -> str:
    origin = get_origin(part) or part
    if isinstance(origin, type) and is_dataclass(origin):
        names = settings_of(f"{origin.__module__}.{origin.__qualname__}")
        return f"a group of settings ({listed(names)})"
    if bases(part) and (origin is Callable or origin is part):
        return f"a class ({listed(classes(part))})"
    words: dict[Any, str] = {
        list: "a list",
        dict: "a mapping",
        bool: "true or false",
        Callable: "a function (my_file.function)",
    }
    name = getattr(origin, "__name__", str(origin))
    if name in ("Iterable", "Sequence", "set", "tuple"):
        return "a list"
    return words.get(origin, f"of type {name}")


def listed(names: Iterable[str]) -> str:
    """Join names, at most a dozen of them."""
    every = list(names)
    return ", ".join(every[:_MOST_NAMED]) + (", ..." if len(every) > _MOST_NAMED else "")

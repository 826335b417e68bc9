"""Import user-named classes from modules in the working folder, and nothing else from there."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from reft_pl.resources import find

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_CONFIG_FILES = (".yaml", ".yml", ".json")


class UserModules:
    """Find top-level modules in one folder: the named ones, and others that a module found here imports.

    It comes last in ``sys.meta_path``, and the folder never enters ``sys.path``. A file there cannot shadow an installed
    package or replace a missing optional one: sympy, not the user, imports ``gmpy2``, so a planted ``gmpy2.py`` never runs.

    Args:
        folder: Folder that holds the modules.
        named: Top-level modules that the user named.
    """

    def __init__(self, folder: str, named: Iterable[str]) -> None:
        self._folder = folder
        self._named = frozenset(named)
        self._found: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module's spec, or None if it is not here or was not named."""
        if path is not None or not (name in self._named or self._importer() in self._found):
            return None
        spec = PathFinder.find_spec(name, [self._folder], target)
        if spec is not None:
            self._found.add(name)
        return spec

    @staticmethod
    def _importer() -> str:
        """Return the top-level module of the importing code."""
        frame = sys._getframe(2)
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("importlib"):
            frame = frame.f_back
        return str(frame.f_globals.get("__name__")).partition(".")[0]


@contextmanager
def user_modules(names: Iterable[str]) -> Iterator[None]:
    """Within this block, import these top-level modules from the working folder."""
    try:
        finder = UserModules(os.getcwd(), names)  # noqa: PTH109
    except FileNotFoundError:  # the folder is gone
        yield
        return
    importlib.invalidate_caches()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def named_in(args: Sequence[str]) -> set[str]:
    """Return the top-level modules of all class paths in the arguments and in the configs that they name."""
    import yaml  # noqa: PLC0415 (--version must answer at once)

    named: set[str] = set()
    read: set[str] = set()
    seen: dict[int, object] = {}
    waiting: list[object] = [arg.partition("=")[2] if arg.startswith("-") else arg for arg in args]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            if id(value) not in seen:  # YAML allows cycles
                seen[id(value)] = value
                waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str):
            if _CLASS_PATH.fullmatch(value.strip()) and not value.endswith(_CONFIG_FILES):
                named.add(value.strip().partition(".")[0])
            if value in read:
                continue
            read.add(value)
            with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):  # the parser reports bad configs
                if value.endswith(_CONFIG_FILES):
                    waiting.append(yaml.safe_load(Path(find(value)).read_text(encoding="utf-8")))
                elif value.lstrip().startswith(("{", "[")):
                    waiting.append(yaml.safe_load(value))
    return named


def named_form(args: Sequence[str]) -> set[str]:
    """Return the top-level module of the class that ``--format`` of `reft-pl solve` names."""
    values = [""]
    for arg, following in pairwise([*args, ""]):
        flag, equals, value = arg.partition("=")
        if len(flag) > 2 and "--format".startswith(flag):
            values.append(value if equals else following)
    return {value.partition(".")[0] for value in values if _CLASS_PATH.fullmatch(value)}

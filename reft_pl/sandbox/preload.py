"""Import everything that programs may import, before the zygote gives up the file system. Standard library only."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

STANDARD_MODULES = (
    "_strptime", "abc", "array", "ast", "atexit", "base64", "bisect", "calendar", "cmath", "collections", "collections.abc",
    "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "encodings.ascii", "encodings.idna",
    "encodings.latin_1", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json",
    "locale", "math", "numbers", "operator", "os", "pprint", "queue", "random", "re", "secrets", "signal", "statistics",
    "string", "struct", "sys", "textwrap", "threading", "time", "timeit", "traceback", "types", "typing", "unicodedata",
    "warnings",
)  # fmt: skip

_LAZY_PARTS = {
    "numpy": ("numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.random"),
    "sympy": (
        "sympy.assumptions", "sympy.codegen.ast", "sympy.combinatorics", "sympy.integrals", "sympy.ntheory",
        "sympy.physics.units", "sympy.series", "sympy.sets", "sympy.solvers", "sympy.stats", "sympy.tensor",
    ),
}  # fmt: skip
"""Submodules that these packages import lazily, inside function calls, when the file system is no longer accessible."""

_SKIPPED = frozenset({"tests", "benchmarks"})


@contextlib.contextmanager
def preloading() -> Iterator[None]:
    """Keep imported modules from registering fork hooks, and make ``ctypes`` unimportable afterwards.

    A child that runs one program does not need the hooks. The one of ``threading`` touches 140 pages of memory; the one of
    ``random`` reseeds, so equal programs would differ. ``ctypes`` is blocked only afterwards because SymPy imports it.
    """
    register = os.register_at_fork
    os.register_at_fork = lambda **hooks: None
    try:
        yield
    finally:
        os.register_at_fork = register
        sys.modules |= dict.fromkeys(("ctypes", "_ctypes"))  # type: ignore[arg-type]  # None: an import raises ModuleNotFoundError


def import_package(name: str) -> ModuleType:
    """Import a package with its lazily imported submodules, and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module(name)
        for part in _LAZY_PARTS.get(name, ()):
            module = importlib.import_module(part)
            if name == "sympy" and hasattr(module, "__path__"):
                _import_below(module)
        for public in getattr(package, "__all__", ()):
            getattr(package, public)  # `from numpy import *` resolves all of them
    return package


def _import_below(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if _SKIPPED.isdisjoint(found.name.split(".")):
            importlib.import_module(found.name)

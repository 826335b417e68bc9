"""What programs can import: a zygote loads it all before it gives up the file system. Standard library only."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from types import ModuleType

STANDARD_MODULES = (
    "_strptime", "abc", "array", "ast", "atexit", "base64", "bisect", "calendar", "cmath", "collections", "collections.abc",
    "contextlib", "copy", "csv", "ctypes", "dataclasses", "datetime", "decimal", "encodings.ascii", "encodings.idna",
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
"""Parts that these packages import only when one of their functions is called, by which time it is too late."""

_SKIPPED = frozenset({"tests", "benchmarks"})


def import_standard_modules() -> None:
    """Import the standard library's modules for arithmetic, text, dates and a little more."""
    for name in STANDARD_MODULES:
        importlib.import_module(name)


def import_package(name: str) -> ModuleType:
    """Import a package with the parts that it would otherwise import later, and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module(name)
        for part in _LAZY_PARTS.get(name, ()):
            module = importlib.import_module(part)
            if name == "sympy" and hasattr(module, "__path__"):
                _import_below(module)
    return package


def _import_below(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if _SKIPPED.isdisjoint(found.name.split(".")):
            importlib.import_module(found.name)

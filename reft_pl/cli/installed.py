"""Versions of installed packages, and the bounds that this package declares for them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

EXTRAS = ("gguf", "vllm", "completion")
"""Optional features of users; the other extras are for development."""


def bounds() -> Iterator[tuple[str, SpecifierSet, bool]]:
    """Yield each dependency of this machine: its name, its bounds, and whether it is optional."""
    for line in requires("reft-pl") or []:
        requirement = Requirement(line)
        needed_by = [
            extra for extra in ("", *EXTRAS) if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        ]
        if needed_by:
            yield requirement.name, requirement.specifier, "" not in needed_by


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None

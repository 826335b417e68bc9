"""The lock files have a hash for every package, and the versions of constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^ ;]+)(?: ; .+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
BY_VERSION = {"torch"}
"""Its hash depends on the build that the machine takes."""
MEASURED_ON = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""Where constraints.txt was measured; it pins nothing that other systems need."""


def entries(name: str) -> list[list[str]]:
    """Return the requirements of a lock file, each with its hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "\t")
    return [[part.strip() for part in line.split("\t")] for line in text.splitlines() if not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(lines: list[str]) -> dict[str, str]:
    found = [match for line in lines if (match := REQUIREMENT.fullmatch(line))]
    assert len(found) == len(lines)
    return {canonical(match["name"]): match["version"] for match in found}


def is_needed(requirement: str) -> bool:
    """Whether a locked requirement is installed where constraints.txt was measured."""
    _, _, marker = requirement.partition(" ; ")
    return not marker or Marker(marker).evaluate(MEASURED_ON)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-docs.lock", "requirements-build.lock"])
def test_every_requirement_has_hashes(name):
    for requirement, *hashes in entries(name):
        assert REQUIREMENT.fullmatch(requirement)
        assert hashes, requirement
        assert all(map(HASH.fullmatch, hashes)), requirement


def test_the_locks_have_the_versions_of_the_constraints():
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = versions([line for line in constraints if not line.startswith("#")])
    both = [requirement for name in ("requirements.lock", "requirements-docs.lock") for requirement, *_ in entries(name)]
    locked = versions(both)
    for_others = {requirement for requirement in both if not is_needed(requirement)}
    assert pinned.keys() - locked.keys() == BY_VERSION
    assert {name: version for name, version in locked.items() if name in pinned} == {
        name: version for name, version in pinned.items() if name in locked
    }
    assert locked.keys() - pinned.keys() == versions(sorted(for_others)).keys() | {"setuptools"}
    build = versions([requirement for requirement, *_ in entries("requirements-build.lock")])
    assert build["setuptools"] == locked["setuptools"]


def test_make_installs_what_the_locks_hold():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("$(INSTALLED): ")[1].split("\n\n")[0]
    installs = [line for line in recipe.splitlines() if "pip install" in line]
    assert len(installs) == 4
    for line in installs:
        by_hash = "--require-hashes" in line and "--no-deps" in line
        assert by_hash or line.endswith("-c constraints.txt torch") or line.endswith("--no-deps --no-build-isolation -e .")

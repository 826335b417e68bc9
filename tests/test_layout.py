"""Tests mirror the package: a test file names its module, and every module has tests in its package's folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "reft_pl").rglob("*.py")
}
PLUG_INS = {path.stem for path in (ROOT / "callbacks").glob("*.py")}

BY_SUBJECT = {
    "cli": "whole command lines, which cross all layers",
    "strategies": "training on several ranks",
    "contracts": "names of other libraries",
    "gpu": "what needs a CUDA device",
}
"""Folders where a test file may be named for its subject."""
OF_THE_REPOSITORY = {
    "benchmarks",
    "documents",
    "hostile_text",
    "layout",
    "locks",
    "notebooks",
    "prose",
    "public_names",
    "tutorial",
    "wheel",
}
"""Test files beside the folders: about the repository as a whole, or about all output."""
OF_SEVERAL_MODULES = {
    "callbacks/test_two_ranks.py": "all callbacks in two processes",
    "formats/test_linear_time.py": "every parser, on a million characters",
    "rl/test_golden_ppo.py": "all steps of PPO against the reference implementation's figures",
    "rl/test_published_formulas.py": "estimators, losses and penalties against the formulas in published.py",
}
TESTED_ELSEWHERE = {
    "reft_pl.choices": "formats and the sandbox, which share it",
    "reft_pl.commands.import_gguf": "tests/models/test_gguf.py",
    "reft_pl.commands.rollout_server": "tests/rollout/vllm",
    "reft_pl.data.programs.draft": "tests/data/programs, through the converters",
    "reft_pl.data.programs.official": "tests/commands/test_prepare.py",
    "reft_pl.rollout.vllm.worker": "tests/rollout/vllm/test_engine.py: vLLM imports it by name",
    "reft_pl.sandbox.channel": "tests/sandbox/test_pool.py: separate processes import it",
    "reft_pl.sandbox.program": "tests/sandbox/test_cpython.py: the zygote imports it",
    "reft_pl.sandbox.zygote": "tests/sandbox/test_cpython.py: a separate process",
    "reft_pl.sandbox.tiered": "a deprecated alias",
    "reft_pl.strategies.gradients": "tests/strategies/test_equality.py, through the update",
    "reft_pl.strategies.ranks": "tests/strategies, through the modules",
}


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & MODULES.keys()


def package(module: str) -> str:
    """Return the package that a module, or a package's ``__init__``, is in."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def folder(module: str) -> Path:
    """Return the folder for the tests of a module."""
    return TESTS / MODULES[module].parent.relative_to(ROOT / "reft_pl")


def reached() -> set[str]:
    """Return modules that tests in their folder import, and the modules that these import within their package or below."""
    files = {path: imports(path) for path in TESTS.rglob("*.py")}
    waiting = [module for path, found in files.items() for module in found if path.is_relative_to(folder(module))]
    waiting += [module for module, path in MODULES.items() if (folder(module) / f"test_{path.stem}.py").exists()]
    done: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in done:
            done.add(module)
            near = (package(module), f"{package(module)}.")
            waiting += [used for used in imports(MODULES[module]) if package(used) == near[0] or used.startswith(near[1])]
    return done


def names_a_module(path: Path) -> bool:
    """Return whether a file is ``test_<module>.py`` or ``test_<module>_<subject>.py`` in the mirrored folder.

    The tests of a package's ``__init__`` have the package's name.
    """
    parent, name = path.relative_to(TESTS).parent, path.stem.removeprefix("test_")
    stems = PLUG_INS if parent == Path("callbacks") else {file.stem for file in (ROOT / "reft_pl" / parent).glob("*.py")}
    stems = (stems | {parent.name}) - {"__init__", ""}
    return any(name == stem or name.startswith(f"{stem}_") for stem in stems)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_file_names_its_module(path: Path) -> None:
    place, *deeper = path.relative_to(TESTS).parts
    excepted = place in BY_SUBJECT if deeper else path.stem.removeprefix("test_") in OF_THE_REPOSITORY
    excepted |= path.relative_to(TESTS).as_posix() in OF_SEVERAL_MODULES
    assert excepted or names_a_module(path), (
        f"no module of reft_pl/{path.relative_to(TESTS).parent} is named as {path.name} says: "
        "rename the file to test_<module>.py or test_<module>_<subject>.py"
    )


def test_every_module_has_tests_in_its_folder() -> None:
    untested = {name for name, path in MODULES.items() if path.name != "__init__.py"} - reached()
    assert untested == set(TESTED_ELSEWHERE), "add tests in the mirrored folder, or correct TESTED_ELSEWHERE"


def test_every_exception_is_needed() -> None:
    files = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("test_*.py")}
    assert files.keys() >= OF_SEVERAL_MODULES.keys()
    assert not [name for name in OF_SEVERAL_MODULES if names_a_module(files[name])]
    assert {f"test_{name}.py" for name in OF_THE_REPOSITORY} <= files.keys()
    assert not [name for name in OF_THE_REPOSITORY if names_a_module(files[f"test_{name}.py"])]
    assert all((TESTS / name).is_dir() for name in BY_SUBJECT)


def test_test_files_do_not_import_one_another() -> None:
    """Helpers are in modules without the prefix, so that importing them collects no tests twice."""
    borrowed = [
        f"{path.relative_to(TESTS)}: {node.module}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and any(name.rpartition(".")[2].startswith("test_") for name in (node.module or "", *(a.name for a in node.names)))
    ]
    assert not borrowed

"""Modules of the working folder: which can be imported, and by which code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reft_pl.cli.user_modules import named_form, named_in, user_modules


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.timeout(20)
def test_a_recursive_config_is_read_once(work: Path) -> None:
    (work / "c.yaml").write_text("a: &x [*x, {class_path: nested.R}]\n")
    (work / "deep.yaml").write_text("a: " + "[" * 5000 + "]" * 5000)
    assert named_in(["fit", "--config", "c.yaml", "--config", "deep.yaml"]) == {"nested"}


def test_class_paths_are_found_on_the_command_line_and_in_configs_within_configs(work: Path) -> None:
    (work / "callbacks.yaml").write_text("- {class_path: in_list.A}\n- short.B\n")
    (work / "c.yaml").write_text(
        "model: {init_args: {reward: {class_path: nested.pack.R}}}\ntrainer: {callbacks: callbacks.yaml}\n"
    )
    (work / "loop.yaml").write_text("a: loop.yaml")
    args = [
        "--config",
        "c.yaml",
        "--config=loop.yaml",
        "--model.reward",
        "spaced.R",
        "--x=equal.R",
        '--y={"class_path": "js.R"}',
    ]
    args += ["--gone", "gone.yaml", "--lr", "0.1", "--url", "http://x.y/z", "--path", "a/b.c"]
    assert named_in(args) >= {"in_list", "short", "nested", "spaced", "equal", "js"}
    assert not named_in(args) & {"loop", "a", "http", "0"}


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["m", "--format", "my_form.F"], {"my_form"}),
        (["m", "--form=my_form.F"], {"my_form"}),
        (["models.evil", "--format", "Chat"], set()),
        (["models.evil", "a.b", "--format"], set()),
    ],
)
def test_solve_names_only_a_format(args: list[str], names: set[str]) -> None:
    assert named_form(args) == names


def test_only_named_modules_and_their_imports_are_found(work: Path) -> None:
    (work / "named_one.py").write_text("import sibling_one\nfrom pack_one.inner import VALUE\n")
    (work / "sibling_one.py").write_text("import importlib\nlater = importlib.import_module('sibling_two')")
    (work / "sibling_two.py").write_text("def late():\n    import sibling_three\n    return sibling_three.VALUE")
    (work / "sibling_three.py").write_text("VALUE = 3")
    (work / "pack_one").mkdir()
    (work / "pack_one" / "inner.py").write_text("VALUE = 1")
    (work / "planted.py").write_text("raise SystemExit('planted')")
    (work / "yaml.py").write_text("raise SystemExit('planted')")
    with user_modules({"named_one", "yaml"}):
        module = importlib.import_module("named_one")
        assert module.VALUE == 1
        assert module.sibling_one.later.late() == 3
        assert importlib.reload(importlib.import_module("yaml")).__file__ != str(work / "yaml.py"), "installed ones win"
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("planted")
        assert importlib.util.find_spec("planted") is None
        assert str(work) not in sys.path
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("pack_two")
    sys.modules.pop("named_one")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("named_one")


def test_a_deleted_working_folder_is_accepted(work: Path) -> None:
    (work / "sub").mkdir()
    os.chdir(work / "sub")
    (work / "sub").rmdir()
    with user_modules({"x"}):
        pass

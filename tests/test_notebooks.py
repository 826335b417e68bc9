"""Notebooks are committed without outputs, and the strict documentation build executes them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def test_notebooks_are_found() -> None:
    assert [path.name for path in NOTEBOOKS] == ["ppo_iteration.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    """Outputs change with every run and machine: clear them before a commit."""
    for cell in read(path)["cells"]:
        assert cell["metadata"] == {}, cell["id"]
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_names_no_machine(path: Path) -> None:
    """Jupyter writes the name of the kernel and the version of Python into the file."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert read(path)["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}


def test_an_error_in_a_cell_fails_the_documentation_build() -> None:
    settings = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    assert settings["nb_execution_mode"] == "force"
    assert settings["nb_execution_raise_on_error"]
    assert "nb_execution_excludepatterns" not in settings
    assert "sphinx-build --fail-on-warning" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "docs" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").split()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code as one script, from another folder; the documentation build runs it in a kernel."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    code = ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "notebook.py").write_text("\n\n".join(code), encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "notebook.py"))
    assert names["after"].mean() > names["outcome"].mean() - 0.15, "an iteration must not destroy the policy"

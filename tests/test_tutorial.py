"""The tutorial's commands, the Python page's script, and the README's picture."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reft_pl.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:\(`(?P<file>[\w.]+)`\):\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def commands(folder: Path) -> Iterator[list[str]]:
    """Write each file of the tutorial and yield each command, in the page's order."""
    for block in BLOCK.finditer((DOCS / "tutorial.md").read_text(encoding="utf-8")):
        if block["file"]:
            (folder / block["file"]).write_text(block["text"], encoding="utf-8")
        elif block["language"] == "sh":
            yield from map(shlex.split, block["text"].splitlines())


@pytest.mark.slow
def test_the_tutorials_commands_print_what_it_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = []
    for program, *arguments in commands(folder):
        done.append(arguments[0])
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
        else:
            assert program == "reft-pl"
            assert main(arguments) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert done == ["make_questions.py", "fit", "test", "fit", "test", "compare", "predict", "report", "solve"]
    before, after = (float(share) for share in re.findall(r"pencils: Top-1 (\S+)% \(95%", printed))
    assert before > 50, "the warm-up learned to copy numbers"
    assert after > 50
    assert re.search(r"8 samples of 200 questions, voting@8 \S+ \(95%: ", printed)
    assert re.search(r"\| run \| Top-1 \| Voting@8 \| upper bound \|\n.*\n\| sft \| .*\n\| ppo \| ", printed)
    assert re.search(r"^answer: .* of 8 samples\)$", printed, re.MULTILINE)
    assert (folder / "report" / "report.html").exists()
    command = [sys.executable, str(DOCS / "render_demo.py"), "runs/sft", "runs/ppo", "--output", str(folder)]
    subprocess.run(command, check=True)
    for theme in ("light", "dark"):
        assert "ReFT, pencils" in (folder / f"demo-{theme}.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_script_of_the_python_page_trains(folder: Path, micro_model: Path) -> None:
    """The page's code, on a model of a few thousand weights and a few questions."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "howto" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    shutil.copytree(micro_model, folder / "configs" / "models" / "tiny_llama")
    smaller = {
        r"size=\d+": "size=8",
        r"epochs=\d+": "epochs=1",
        r"batch_size=\d+": "batch_size=4",
        "max_rows=256": "max_rows=8",
    }
    for pattern, text in smaller.items():
        code = re.sub(pattern, text, code)
    (folder / "train.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(folder / "train.py"), run_name="__main__")
    for run in ("sft", "ppo"):
        assert (folder / "runs" / run / "hf" / "model.safetensors").exists()
        assert (folder / "runs" / run / "checkpoints" / "last.ckpt").exists()
    assert (folder / "runs" / "ppo" / "results.json").exists()

"""Shell completion, by argcomplete's own protocol in a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete")

from reft_pl.cli.completion import cached_keys
from reft_pl.resources import cache_dir


@pytest.fixture
def complete(tmp_path: Path):
    """Return the completions of a command line that ends at the cursor."""

    def run(line: str, folder: Path = tmp_path) -> list[str]:
        output = tmp_path / "completions"
        shell = {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_SHELL": "bash",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(output),
            "_ARGCOMPLETE_IFS": "\n",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "COMP_TYPE": "9",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        code = "from reft_pl.cli import main; import sys; sys.argv = ['reft-pl']; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | shell, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [word.strip() for word in output.read_text().split("\n")]

    return run


def test_verbs_complete(complete) -> None:
    assert complete("reft-pl re") == ["recipes", "report"]
    assert {"fit", "test", "init", "doctor", "memory", "solve"} <= {*complete("reft-pl ")}


def test_options_of_a_command_complete(complete) -> None:
    assert complete("reft-pl solve --tem") == ["--temperature"]
    assert complete("reft-pl init --f") == ["--force"]
    assert complete("reft-pl solve runs/sft --dtype b") == ["bfloat16"]


def test_names_of_configs_complete_in_any_folder(complete, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("")
    assert complete("reft-pl fit --config configs/algorithms/gr") == ["configs/algorithms/grpo.yaml"]
    assert complete("reft-pl memory --config m") == ["my.yaml"]
    assert complete("reft-pl recipes data/svamp_") == ["data/svamp_nl", "data/svamp_python"]


def test_keys_of_a_verb_complete_from_the_cache(complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keys = cached_keys()
    assert {"run_dir", "model.policy.init_from", "model.kl.coef", "data.max_tokens", "trainer.devices"} <= {*keys}
    assert (cache_dir() / "completions.txt").read_text().splitlines()[1:] == keys
    assert complete("reft-pl fit --config configs/ppo.yaml --model.kl.co") == ["--model.kl.coef"]
    assert "--gpu_memory" in complete("reft-pl memory --g")


def test_keys_are_found_again_when_the_package_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_dir().mkdir()
    (cache_dir() / "completions.txt").write_text("0\nof_an_older_version")
    assert "of_an_older_version" not in cached_keys()

"""The wheel works in an empty folder, without a clone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_runs_the_shipped_configs_in_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), str(ROOT)]
    built = subprocess.run(build, check=True, capture_output=True, cwd=tmp_path, text=True)
    assert "would be ignored" not in built.stdout + built.stderr, "setuptools takes no folder of data for a package"
    (wheel,) = (tmp_path / "dist").glob("reft_pl-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    configs = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.*") if path.suffix != ".pyc"}
    data = {path.relative_to(ROOT) for path in (ROOT / "reft_pl").rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert data <= {path.relative_to(site) for path in (site / "reft_pl").rglob("*.*")}
    assert configs <= {path.relative_to(site / "reft_pl_configs") for path in (site / "reft_pl_configs").rglob("*.*")}
    empty = tmp_path / "empty"
    empty.mkdir()
    stories = {"class_path": "StorySource", "init_args": {"split": "train", "size": 8}}
    (empty / "small.yaml").write_text(yaml.safe_dump({"data": {"train": [stories], "cache_dir": str(tmp_path / "cache")}}))
    code = "import sys, reft_pl; print(reft_pl.__file__); from reft_pl.cli import main; sys.exit(main())"
    options = ["--config", "small.yaml", "--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0"]
    for command in (["fit", "--config", "configs/sft.yaml", *options], ["report", "runs/sft"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command],
            check=False, cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(site)), "the installed package, not the clone, must have run"
    assert (empty / "runs" / "sft" / "hf" / "model.safetensors").exists()
    assert "Plotly.newPlot" in (empty / "report" / "report.html").read_text(), "the page's files are in the wheel"

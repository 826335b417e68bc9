"""Time the command line's start, and a tiny run up to its first optimizer step.

For comparison, importing Lightning and transformers alone is timed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

LIBRARIES = "importing the libraries"
FIRST_STEP = "fit to its first step"
TARGETS = {"--version": 1.0, "--help": 3.0, FIRST_STEP: 8.0}


class EndAtFirstStep(Callback):
    """End the process at once, so that checkpoint and export are not timed."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        os._exit(0)


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    command = [str(Path(sys.executable).with_name("reft-pl"))]
    imports = [sys.executable, "-c", "import lightning.pytorch.cli; from transformers import LlamaForCausalLM"]
    found: dict[str, list[float]] = {name: [] for name in (*TARGETS, LIBRARIES)}
    for _ in range(args.rounds):
        for name in ("--version", "--help"):
            found[name].append(_seconds([*command, name]))
        found[LIBRARIES].append(_seconds(imports))
        with tempfile.TemporaryDirectory() as folder:
            found[FIRST_STEP].append(_first_step(command, folder))
    for name, values in found.items():
        target = f" (target {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"{name:24} {statistics.median(values):5.2f} s{target}")
    print(json.dumps(found))
    return 0


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def _first_step(command: list[str], folder: str) -> float:
    """Time a fit with an empty token cache."""
    settings = ["--trainer.callbacks+=benchmarks.startup.EndAtFirstStep", "--data.cache_dir", f"{folder}/cache"]
    return _seconds([*command, "fit", "--config", "configs/sft.yaml", "--run_dir", f"{folder}/run", *settings])

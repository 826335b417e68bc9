"""Seconds until the command line answers, and for a run of the tiny model that ends after its first optimizer step."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGETS = {"--version": 1.0, "--help": 3.0, "fit, one step": 8.0}


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    command = [str(Path(sys.executable).with_name("reft-pl"))]
    found: dict[str, list[float]] = {name: [] for name in TARGETS}
    for _ in range(args.rounds):
        for name in ("--version", "--help"):
            found[name].append(_seconds([*command, name]))
        with tempfile.TemporaryDirectory() as folder:
            found["fit, one step"].append(_one_step(command, folder))
    for name, values in found.items():
        print(f"{name:16} {statistics.median(values):5.2f} s (target {TARGETS[name]:g})")
    print(json.dumps(found))
    return 0


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def _one_step(command: list[str], folder: str) -> float:
    """With what comes after it: the checkpoint and the export."""
    limits = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--data.cache_dir", f"{folder}/cache"]
    return _seconds([*command, "fit", "--config", "configs/sft.yaml", "--run_dir", f"{folder}/run", *limits])

"""Runs in several processes, and the files that they write.

Ranks are forks of a separate process (``forked.py``).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from reft_pl.strategies.sharded_checkpoint import read_weights


def on_two_cpus(strategy: str) -> list[str]:
    """Arguments of ``ddp`` or ``zero1`` to ``zero3`` on two CPU processes; none of ``one``."""
    if strategy == "one":
        return []
    name, stage = ("zero", ["--trainer.strategy.stage", strategy[-1]]) if strategy.startswith("zero") else (strategy, [])
    overlays = [argument for overlay in (name, "two_cpus") for argument in ("--config", f"configs/strategy/{overlay}.yaml")]
    return [*overlays, *stage]


def forked(*arguments: object, folder: Path, fails: bool = False, largest_file: int = resource.RLIM_INFINITY) -> str:
    """Run a scenario and return its output; ``largest_file`` limits the size of files it writes, in bytes."""
    script = Path(__file__).parent / "forked.py"
    command = [sys.executable, str(script), *map(str, arguments)]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    run = partial(subprocess.run, capture_output=True, text=True, timeout=590, check=False)
    done = run(command, cwd=folder, preexec_fn=limit)
    output = done.stdout + done.stderr
    assert bool(done.returncode) == fails, output[-5000:]
    return output


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), 1e-2)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm())


def weights(run: Path) -> dict[str, torch.Tensor]:
    value_head = run / "hf" / "value_head.safetensors"
    return load_file(run / "hf" / "model.safetensors") | (load_file(value_head) if value_head.exists() else {})


def same(a: Path, b: Path) -> None:
    """Check that checkpoint, export and samples of two runs are bitwise equal."""
    for of in (weights, resumable):
        mine, theirs = of(a), of(b)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (a / "rollouts.jsonl").exists() == (b / "rollouts.jsonl").exists()
    if (a / "rollouts.jsonl").exists():
        assert (a / "rollouts.jsonl").read_bytes() == (b / "rollouts.jsonl").read_bytes()


def resumable(run: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of ``last.ckpt``: weights, master weights and optimizer moments of all ranks."""
    last = run / "checkpoints" / "last.ckpt"
    files = sorted(last.rglob("*.pt")) if last.is_dir() else [last]
    found = last_weights(run) if last.is_dir() else {}
    for file in files:
        found |= tensors(torch.load(file, map_location="cpu", weights_only=False), file.name)
    # Put together above: apart, they are filled up with whatever stood in memory.
    found = {name: tensor for name, tensor in found.items() if "/fp32_flat_groups/" not in name}
    assert any("exp_avg_sq" in name for name in found)
    return found


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    last = run / "checkpoints" / "last.ckpt"
    stored = read_weights(last) if last.is_dir() else torch.load(last, map_location="cpu", weights_only=False)
    found: dict[str, torch.Tensor] = stored["state_dict"]
    return found


def tensors(value: object, key: str) -> dict[str, torch.Tensor]:
    if isinstance(value, dict):
        return {k: v for name, child in value.items() for k, v in tensors(child, f"{key}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, child in enumerate(value) for k, v in tensors(child, f"{key}/{i}").items()}
    return {key: value} if isinstance(value, torch.Tensor) else {}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def joined(*commands: Sequence[str]) -> list[str]:
    return [word for command in commands for word in (*command, "--")][:-1]

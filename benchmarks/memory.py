"""Compare the memory that `reft-pl memory` computes for an update with the process's real use, on the CPU.

Runs two optimizer steps of two full-length micro-batches each, with float32 master weights for bfloat16; memory peaks in the
second step. Peak resident memory is counted from after the imports. The allocator returns freed memory immediately, because
what it keeps is its choice, not a need of the run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from pathlib import Path

import torch

from reft_pl.models.dtype import fastest_dtype
from reft_pl.models.loading import load_policy
from reft_pl.models.memory import Estimate, Run, estimate
from reft_pl.models.micro_batches import split, take
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.pretrained import load_config
from reft_pl.models.scoring import score
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.types import TokenBatch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Constants of glibc's ``mallopt``."""


def main(argv: list[str]) -> int:
    """Measure once and print both figures as JSON."""
    parser = argparse.ArgumentParser("python -m benchmarks memory", description=__doc__)
    parser.add_argument("--model", default="models/smollm2-135m")
    parser.add_argument("--rows", type=int, default=4, help="sequences per micro-batch")
    parser.add_argument("--length", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=fastest_dtype())
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--lora", type=int, metavar="R", help="rank of adapters (default: all weights)")
    options = parser.parse_args(argv)
    for setting in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        ctypes.CDLL(None).mallopt(setting, 2**16)
    lora = LoRASettings(r=options.lora) if options.lora else None
    policy = PolicySettings(options.model, dtype=options.dtype, gradient_checkpointing=options.checkpointing, lora=lora)
    run = Run(policy, options.length, options.rows * options.length, 2 * options.rows, cache_rows=0, gpu=False)
    computed = estimate(load_config(options.model, {"local_files_only": True}), run)
    torch.nn.Linear(8, 8)(torch.zeros(1, 8)).sum().backward()  # exclude what torch loads at first use
    before = _resident("VmRSS")
    train(run)
    measured = _resident("VmHWM") - before
    print(json.dumps(as_figures(computed, measured), indent=2))
    return 0


def as_figures(computed: Estimate, measured: int) -> dict[str, object]:
    """Return both figures in megabytes, the computed one also by part."""
    phase = max(("update", "optimizer step"), key=computed.total)
    parts = {name: round(computed.parts.get(name, 0) / 1e6) for name in computed.phases[phase]}
    total = computed.total(phase)
    return {
        "computed_mb": round(total / 1e6),
        "measured_mb": round(measured / 1e6),
        "computed_over_measured": round(total / measured, 3),
        "peak": phase,
        "parts_mb": {name: size for name, size in parts.items() if size},
    }


def train(run: Run) -> None:
    """Run two optimizer steps on random tokens, in micro-batches split as in the modules."""
    policy = load_policy(run.policy)
    optimizer = MasterAdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-6)
    ids = torch.randint(3, policy.vocab_size, (run.sequences, run.max_tokens))
    real = torch.ones_like(ids, dtype=torch.bool)
    action = real.clone()
    action[:, -1] = False
    batch = TokenBatch(ids, real, action)
    for _ in range(2):
        for rows in split(batch, run.micro_batch_tokens):
            (-score(policy, take(batch, rows)).logprobs.sum() / ids.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()


def _resident(name: str) -> int:
    """Return this process's current (VmRSS) or peak (VmHWM) resident memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")

"""Run contenders in separate processes that take turns, so that they do not share allocator or cache state."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._machine import matmul_peak
from reft_pl.cli.allocator import keep_freed_memory


@dataclass(frozen=True)
class Contender:
    """A side of a benchmark: ``python -m benchmarks NAME ... --side SIDE``, with our allocator settings or without."""

    side: str
    label: str
    our_allocator: bool


OURS = Contender("ours", "reft-pl", True)
CONTENDERS = [
    OURS,
    Contender("straight", "straight, default allocator", False),
    Contender("straight", "straight, our allocator", True),
]
"""Ours, and the baseline: padded batches, full logits, ``generate`` until the last row ends (``_straight.py``)."""


def race(argv: list[str], rounds: int, contenders: Sequence[Contender]) -> dict[str, list[dict[str, Any]]]:
    """Return each contender's reports by label; the first round of each is a warm-up and is dropped."""
    processes = {
        c.label: subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *argv, "--side", c.side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "REFT_BENCHMARK_ALLOCATOR": "ours" if c.our_allocator else "default"},
        )
        for c in contenders
    }
    reports: dict[str, list[dict[str, Any]]] = {label: [] for label in processes}
    try:
        for turn in range(rounds + 1):
            for label, process in processes.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"{label} ended in round {turn} with exit code {process.wait()}")
                report = json.loads(line)
                print(f"  round {turn} of {rounds}: {label} {report['seconds']:.2f} s", file=sys.stderr, flush=True)
                if turn:
                    reports[label].append(report)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return reports


def chosen(contenders: Sequence[Contender], against: str) -> list[Contender]:
    """Return ours and every other contender with ``against`` in its label."""
    others = [c for c in contenders if c != OURS and against in c.label]
    if not others:
        raise SystemExit(f"--against {against!r} is in no name of {[c.label for c in contenders if c != OURS]}")
    return [OURS, *others]


def race_each(argv: list[str], rounds: int, against: str) -> dict[str, list[dict[str, Any]]]:
    """Race ours against each other contender separately: two baseline steps together need more memory than laptops have."""
    reports: dict[str, list[dict[str, Any]]] = {}
    for contender in chosen(CONTENDERS, against)[1:]:
        for label, found in race(argv, rounds, [OURS, contender]).items():
            reports.setdefault(label, []).extend(found)
    return reports


class Turns:
    """A contender's side: one turn per line of standard input, one report per line of standard output."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")  # library output must not mix with the reports
        os.dup2(2, 1)

    def wait(self) -> bool:
        """Wait for the next turn; false if the race has ended."""
        return bool(sys.stdin.readline())

    def report(self, figures: dict[str, Any]) -> None:
        """End the turn with its figures and the peak memory of the process."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._out.write(json.dumps({**figures, "peak_bytes": peak}) + "\n")
        self._out.flush()


def take_turns(turn: Callable[[], dict[str, Any]]) -> int:
    """Run a contender's side with a function for each turn."""
    turns = Turns()
    while turns.wait():
        turns.report(turn())
    return 0


def show(what: str, reports: dict[str, list[dict[str, Any]]], flops: float, dtype: torch.dtype, agreed: str) -> None:
    """Print times and the share of the matrix-product peak they reach, with JSON on the last line.

    Args:
        what: What was measured.
        reports: From ``race``.
        flops: FLOPs that the work needs.
        dtype: Dtype of the computation.
        agreed: A report key on which all contenders must agree to 2%, the tolerance of bfloat16.
    """
    peak, figures = matmul_peak(dtype), {label: r[0][agreed] for label, r in reports.items()}
    if max(figures.values()) - min(figures.values()) > 0.02 * max(map(abs, figures.values())):
        raise SystemExit(f"contenders do not do the same: {agreed} is {figures}")
    ours = median(reports[OURS.label])
    rows = []
    for label, report in reports.items():
        t = median(report)
        rows.append((label, f"{t:.2f} s", f"{flops / t / peak:.0%}", f"{t / ours:.2f}x", f"{figures[label]:.4f}"))
    rounds = min(map(len, reports.values()))
    print(f"{what}, {torch.get_num_threads()} threads, {str(dtype).removeprefix('torch.')};")
    print(f"matrix product peak {peak / 1e9:.0f} GFLOP/s, median of {rounds} rounds in turn\n")
    print(table(rows, ("", "time", "of peak", "over ours", agreed)))
    seconds = {label: [r["seconds"] for r in report] for label, report in reports.items()}
    print(json.dumps({"peak_flops": peak, "needed_flops": flops, "seconds": seconds}))


def median(reports: list[dict[str, Any]], name: str = "seconds") -> float:
    """Return the median of one figure over the rounds."""
    return statistics.median(float(report[name]) for report in reports)


def set_allocator() -> None:
    """Apply our allocator settings if the race asks for them; call it before the first tensor is created."""
    if os.environ.get("REFT_BENCHMARK_ALLOCATOR") == "ours":
        keep_freed_memory()


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """Format a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, tuple("---" for _ in head), *rows)]
    return "\n".join(lines)

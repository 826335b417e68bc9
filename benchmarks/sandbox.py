"""Measure programs per minute of our sandboxes and of a ten-line process pool, in turn on the same batches.

The pool is created for every batch, which is necessary if programs may patch their worker; it confines nothing. Here it runs
only the dataset's annotated programs, never a model's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from reft_pl.formats.answers import answers_equal
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Answer

Runner = Callable[[Sequence[str]], list[Answer | None]]


@dataclass(frozen=True)
class Measurement:
    """Figures of one contender over all rounds."""

    name: str
    programs_per_minute: float
    slowest_round: float
    fastest_round: float
    correct: int
    programs: int
    target: int | None


def run_plainly(program: str) -> Answer | None:
    """Run a program as a user would: without limits or isolation."""
    namespace: dict[str, object] = {"math": math}
    try:
        exec(program, namespace)  # the dataset's own programs
        return float(namespace["solution"]())  # type: ignore[operator]
    except Exception:
        return None


def not_plain(program: str) -> str:
    """Return the same program in a form that our sandbox runs in a separate process."""
    return f"nothing = {{}}\n{program}"


def pool_per_batch(programs: Sequence[str], workers: int) -> list[Answer | None]:
    """Run one batch in a new process pool."""
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(run_plainly, programs, timeout=60))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, and JSON on the last line; exit with code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sandbox", description=__doc__)
    parser.add_argument("--batch", type=int, default=256, help="programs in a batch (a PPO iteration's)")
    parser.add_argument("--rounds", type=int, default=5, help="batches per contender, in turn")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)

    shared = Path(os.environ.get("REFT_SHARED", Path(__file__).parents[2] / "shared"))
    source = shared / "data" / "svamp_python_sdp.json"
    if not source.is_file():
        print(f"no {source.name} under {shared}: set REFT_SHARED", file=sys.stderr)
        return 2
    rows = json.loads(source.read_text(encoding="utf-8"))
    cpython = CPythonSandbox(workers=arguments.workers)
    contenders: dict[str, tuple[Runner, int | None]] = {
        "CPythonSandbox (default)": (lambda programs: [result.value for result in cpython.run(programs)], 30_000),
        "a process for each": (lambda programs: [result.value for result in cpython.run(map(not_plain, programs))], None),
        "process pool per batch": (lambda programs: pool_per_batch(programs, arguments.workers), None),
    }
    try:
        measured = measure(rows, contenders, arguments.batch, arguments.rounds)
    finally:
        cpython.close()

    print(f"{'':<26}{'programs/min':>14}{'slowest':>12}{'fastest':>12}{'correct':>14}{'target':>10}")
    for figures in measured:
        correct = f"{figures.correct}/{figures.programs}"
        print(
            f"{figures.name:<26}{figures.programs_per_minute:>14,.0f}{figures.slowest_round:>12,.0f}"
            f"{figures.fastest_round:>12,.0f}{correct:>14}{figures.target or '':>10}"
        )
    print(json.dumps({"batch": arguments.batch, "workers": arguments.workers, "results": [asdict(m) for m in measured]}))
    return int(any(m.target is not None and m.programs_per_minute < m.target for m in measured))


def measure(
    rows: Sequence[dict[str, str]], contenders: dict[str, tuple[Runner, int | None]], batch: int, rounds: int
) -> list[Measurement]:
    """Time every contender on every batch in turn, after a small warm-up batch that starts its processes."""
    batches = [[rows[(i * batch + j) % len(rows)] for j in range(batch)] for i in range(rounds)]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    correct = dict.fromkeys(contenders, 0)
    for run, _ in contenders.values():
        run([row["answer_cot"] for row in rows[:8]])
    for chosen in batches:
        programs = [row["answer_cot"] for row in chosen]
        for name, (run, _) in contenders.items():
            start = time.perf_counter()
            values = run(programs)
            seconds[name].append(time.perf_counter() - start)
            correct[name] += sum(answers_equal(v, float(row["answer_value"])) for v, row in zip(values, chosen, strict=True))
    return [
        Measurement(
            name=name,
            programs_per_minute=60 * batch / statistics.median(seconds[name]),
            slowest_round=60 * batch / max(seconds[name]),
            fastest_round=60 * batch / min(seconds[name]),
            correct=correct[name],
            programs=batch * rounds,
            target=target,
        )
        for name, (_, target) in contenders.items()
    ]


if __name__ == "__main__":
    sys.exit(main())

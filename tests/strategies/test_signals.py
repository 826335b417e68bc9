"""A signal to one or all ranks stops the run, and the same command resumes it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.modules.stops import SIGNAL_AT

from .runs import forked, same


def processes_of(folder: Path) -> list[str]:
    """Find the command lines of processes that name the folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(file.read_text())
    return [line for line in lines if str(folder) in line]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "ranks"), [("ddp", [0]), ("ddp", [0, 1]), ("zero2", [0, 1])], ids=str)
def test_a_signal_ends_all_ranks_and_the_run_resumes(
    strategy: str, ranks: list[int], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "signal_at.py").write_text(SIGNAL_AT)
    forked("commands", 2, *arguments("fit", strategy, "whole"), folder=tmp_path)
    callback = {"class_path": "signal_at.SignalAt", "init_args": {"hook": "training update", "n": 2, "ranks": ranks}}
    command = [str(Path(sys.executable).parent / "reft-pl"), *arguments("fit", strategy, "stopped")]
    command += ["--trainer.callbacks+", json.dumps(callback)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-3000:]
    assert done.stderr.count("stopped by SIGTERM; ") == 1, "once, not once a rank"
    assert "Traceback" not in done.stderr
    assert not processes_of(tmp_path), "no rank is left"
    forked("commands", 2, *arguments("fit", strategy, "stopped"), folder=tmp_path)
    same(tmp_path / "whole", tmp_path / "stopped")

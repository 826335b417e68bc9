"""Run a command in a process that sends itself a signal at a given call."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

SIGNAL_IN = """
import os, sys
from importlib import import_module
from reft_pl.cli import main

module, name, signum, *arguments = sys.argv[1:]
holder = import_module(module)
original = getattr(holder, name)

def signalled(*args, **options):
    os.kill(os.getpid(), int(signum))
    return original(*args, **options)

setattr(holder, name, signalled)
sys.exit(main(arguments))
"""


def stopped(where: str, signum: signal.Signals, *arguments: str, cwd: Path) -> None:
    """Run a command that gets a signal when it calls ``where``; check that it ends by it with one sentence."""
    module, _, name = where.rpartition(".")
    command = [sys.executable, "-c", SIGNAL_IN, module, name, str(int(signum)), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 128 + signum, done.stderr[-2000:]
    assert done.stderr.count(f"stopped by {signum.name}; nothing is lost") == 1
    assert "Traceback" not in done.stderr

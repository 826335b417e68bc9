"""Signals during protected blocks, and the signal of a closed terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

from reft_pl.interruption import Interrupted, interruption

SIGNAL_AT_IMPORT = """
import os, sys

class SignalAtImport:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.linalg":
            os.kill(os.getpid(), 15)

sys.meta_path.insert(0, SignalAtImport())
from reft_pl.cli import main
sys.exit(main(["fit", "--config", "configs/sft.yaml", "--print_config"]))
"""

IN_A_TERMINAL = """
import sys, time
from reft_pl.interruption import Interrupted, interruption

try:
    with interruption.handled(), interruption.put_off():
        print("ready", flush=True)
        while interruption.signum is None:
            time.sleep(0.01)
        print("saves a checkpoint", flush=True)
except Interrupted as stop:
    print(stop, file=sys.stderr, flush=True)
    sys.exit(stop.exit_code)
"""


def test_a_closed_terminal_is_a_signal_and_no_write_fails() -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", IN_A_TERMINAL])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP


def test_nohup_is_respected() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.handled():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_signal_waits_for_the_end_of_a_protected_block() -> None:
    done = False
    with pytest.raises(Interrupted), interruption.handled():  # noqa: PT012 (the block is what is tested)
        with interruption.put_off():
            os.kill(os.getpid(), signal.SIGTERM)
            done = True
        pytest.fail("the signal is lost")
    assert done


def test_a_signal_during_an_import_ends_the_command_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNAL_AT_IMPORT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
    assert done.stderr.count("stopped by SIGTERM; ") == 1
    assert "Traceback" not in done.stderr

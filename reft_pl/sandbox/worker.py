"""One worker process and the trainer's end of its socket."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from reft_pl.sandbox import frames

_REPLY_LIMIT = 8 + frames.MAX_BODY_BYTES
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "MONTY_BIN", "TMPDIR")
_WORKER_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # a program that iterates over a set answers the same in every worker
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def package_folders(names: Sequence[str]) -> dict[str, str]:
    """The folder that holds each package that is installed, found without importing any."""
    specs = {name: importlib.util.find_spec(name) for name in names}
    return {name: str(Path(spec.origin).parents[1]) for name, spec in specs.items() if spec is not None and spec.origin}


class WorkerGoneError(Exception):
    """The process ended, or wrote something that is no reply."""


class Worker:
    """A process of ours, in a session of its own, that takes programs and gives results over a socket.

    Args:
        entry: A module of this package with a function ``main``.
        arguments: What to call ``main`` with: literals only.
        import_paths: Folders that the process may import from, besides the standard library.
        isolated: Leave site-packages out (``-S``).
    """

    def __init__(self, entry: str, arguments: Sequence[object], import_paths: Sequence[str], isolated: bool):
        paths = [str(Path(__file__).parents[2]), *import_paths]
        code = f"import sys; sys.path[:1] = {paths!r}; import {entry} as entry; entry.main(*{tuple(arguments)!r})"
        self._command = [sys.executable, "-s", *(["-S"] if isolated else []), "-c", code]
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._owner = os.getpid()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(os.environ),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self._owner = os.getpid()

    def send(self, source: bytes, timeout: float) -> None:
        """Hand over a program.

        Raises:
            WorkerGoneError: it does not take it.
        """
        assert self._socket is not None, "start() comes first"
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(frames.pack(source))
        except OSError as error:
            raise WorkerGoneError(str(error)) from error

    def receive(self, timeout: float) -> tuple[str, float | str | None, str, float]:
        """Wait for the next result: ``(status, value, detail, seconds)``.

        Raises:
            TimeoutError: none came in time; the worker is of no use any more.
            WorkerGoneError: the process has ended or talks nonsense.
        """
        deadline = time.monotonic() + timeout
        channel = self._socket
        assert channel is not None, "start() comes first"

        def receive(count: int) -> bytes:
            channel.settimeout(max(deadline - time.monotonic(), 1e-3))
            return channel.recv(count)

        try:
            frame = frames.read_frame(receive, _REPLY_LIMIT)
            if frame is None:
                raise WorkerGoneError("the process ended")
            return frames.unpack_reply(frame)
        except TimeoutError:
            raise
        except (OSError, frames.FrameError) as error:
            raise WorkerGoneError(str(error)) from error

    def kill(self) -> None:
        """End the process and whatever it started, now. ``start`` begins anew. In a fork of its owner, only let go of it."""
        if self._owner != os.getpid():
            self.forget()
            return
        process, channel = self._process, self._socket
        self._process = self._socket = None
        if channel is not None:
            channel.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def forget(self) -> None:
        """Let go of a process that belongs to another process (after a fork of the trainer)."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.returncode = 0  # not our child: nobody to wait for
        self._process = self._socket = None


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: ours[name] for name in _KEPT_ENVIRONMENT if name in ours} | _WORKER_ENVIRONMENT

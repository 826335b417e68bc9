"""One worker process and the trainer's end of its socket."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from reft_pl.sandbox import frames

START_SECONDS = 60.0  # how long a worker may take to import what it needs (SymPy on a busy machine)
START_ATTEMPTS = 10  # starts of a worker that dies before it is ready: somebody may be killing our processes
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "MONTY_BIN", "TMPDIR")
_WORKER_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # a program that iterates over a set answers the same in every worker
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def package_folders(names: Sequence[str]) -> dict[str, str]:
    """The folder that holds each installed package, found without importing any."""
    specs = {name: importlib.util.find_spec(name) for name in names}
    return {name: str(Path(spec.origin).parents[1]) for name, spec in specs.items() if spec is not None and spec.origin}


class WorkerGoneError(Exception):
    """The process has ended."""


class WorkerStartError(Exception):
    """The process does not serve; the text is its reason, if it gave one."""


class Worker:
    """A worker process in its own session that takes programs over a socket and reports how they ended.

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
        """Start the process unless it runs, and again if something kills it while it starts.

        Raises:
            WorkerStartError: it refuses, or does not come up.
        """
        if self._process is not None:
            return
        reason = ""
        for _ in range(START_ATTEMPTS):
            self._launch()
            try:
                reason = self._read(frames.GREETING_BYTES, START_SECONDS).rstrip(b"\0").decode("utf-8", "replace")
                if not reason:
                    return
                self.kill()
                break
            except TimeoutError:
                self.kill()
                raise WorkerStartError(f"no word from the process within {START_SECONDS:.0f} s") from None
            except WorkerGoneError as error:
                self.kill()
                reason = f"the process ends while it starts ({error})"
        raise WorkerStartError(reason)

    def run(self, source: bytes, timeout: float) -> tuple[frames.Result, int, float]:
        """Run a program: its text travels in an anonymous file, its result in a pipe.

        Returns its result, the wait status of its process, and its wall time in seconds.

        Raises:
            WorkerStartError: the process cannot be started.
            WorkerGoneError: the process has ended.
            TimeoutError: no report came in time; the process is useless from now on.
        """
        self.start()
        result, write_end = os.pipe()
        with open(result, "rb", 0) as pipe:  # noqa: PTH123 (a descriptor)
            try:
                with _anonymous_file(source) as program:
                    if self._socket is None:  # another thread has closed the sandbox
                        raise WorkerGoneError("the process was stopped")
                    socket.send_fds(self._socket, [b"p"], [program.fileno(), write_end])
            except OSError as error:
                raise WorkerGoneError(str(error)) from error
            finally:
                os.close(write_end)
            late, wait_status, seconds = frames.ENDED.unpack(self._read(frames.ENDED.size, timeout))
            os.set_blocking(result, False)
            data = pipe.read(frames.MAX_RESULT_BYTES + 1) or b""  # None: a process that outlives its program holds the pipe
        return frames.judge(data, late, wait_status), wait_status, seconds

    def kill(self) -> None:
        """End the process and whatever it started. In a fork of its owner, only let go of it."""
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

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ} | _WORKER_ENVIRONMENT,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self._owner = os.getpid()

    def _read(self, count: int, timeout: float) -> bytes:
        deadline, data = time.monotonic() + timeout, b""
        while len(data) < count:
            channel = self._socket
            try:
                if channel is None:
                    raise WorkerGoneError("the process was stopped")
                channel.settimeout(max(deadline - time.monotonic(), 1e-3))
                part = channel.recv(count - len(data))
            except TimeoutError:
                raise
            except OSError as error:
                raise WorkerGoneError(str(error)) from error
            if not part:
                raise WorkerGoneError("the process ended")
            data += part
        return data


def _anonymous_file(content: bytes) -> IO[bytes]:
    """A file without a name that holds ``content``, positioned at its start."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = open(os.memfd_create("program"), "w+b", 0)  # noqa: PTH123, SIM115 (a descriptor; closed by the caller)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file

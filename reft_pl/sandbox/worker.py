"""The trainer's handle on one worker process and its socket."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from reft_pl.sandbox import frames

START_SECONDS = 60.0  # how long a worker may take to import its modules (SymPy on a busy machine)
START_ATTEMPTS = 10  # starts of a worker that dies before it is ready: something may be killing our processes
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")
_WORKER_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # iteration order of sets is the same in every worker
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1048576",  # fixed: glibc would otherwise adapt it to what earlier programs freed
    "MALLOC_TRIM_THRESHOLD_": "1048576",
}


def package_folders(names: Sequence[str]) -> dict[str, str]:
    """Map each installed package to the folder that contains it, without importing it."""
    specs = {name: importlib.util.find_spec(name) for name in names}
    return {name: str(Path(spec.origin).parents[1]) for name, spec in specs.items() if spec is not None and spec.origin}


class WorkerGoneError(Exception):
    """The process has ended."""


class WorkerStartError(Exception):
    """The process cannot serve; the message is its reason, if it sent one."""


class Worker:
    """A worker process in its own session that receives programs over a socket and reports how they ended.

    Args:
        arguments: Arguments for the zygote's ``main``; literals only.
        import_paths: Folders to import from, besides the standard library.
        plain_seconds: Time limit of a plain program in the shared child, in seconds; None to run without that child.
        only_plain: Return ``unsupported`` for every program that the shared child does not decide.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        import_paths: Sequence[str],
        plain_seconds: float | None = None,
        only_plain: bool = False,
    ):
        paths = [str(Path(__file__).parents[2]), *import_paths]
        code = f"import sys; sys.path[:1] = {paths!r}; from reft_pl.sandbox import zygote; zygote.main(*{tuple(arguments)!r})"
        self._command = [sys.executable, "-s", "-S", "-c", code]
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._plain_seconds = plain_seconds
        self._only_plain = only_plain
        self._plain: socket.socket | None = None  # to the shared child
        self._owner = os.getpid()

    @property
    def pid(self) -> int | None:
        """Process ID while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process unless it is running, and retry if something kills it during startup.

        Raises:
            WorkerStartError: the process reports a reason not to serve, or does not start.
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
                raise WorkerStartError(f"the process was not ready within {START_SECONDS:.0f} s") from None
            except WorkerGoneError as error:
                self.kill()
                reason = f"the process dies during startup ({error})"
        raise WorkerStartError(reason)

    def run(self, source: bytes, timeout: float) -> tuple[frames.Result, int, float]:
        """Run a program in the shared child if it is plain, else in a separate process.

        A separate process reads the source from an anonymous file and writes its result to a pipe.

        Returns the result, the wait status of the process, and the wall time in seconds.

        Raises:
            WorkerStartError: the worker cannot be started.
            WorkerGoneError: the worker has ended.
            TimeoutError: the worker did not report within ``timeout`` seconds; it is unusable and must be killed.
        """
        self.start()
        start = time.monotonic()
        if self._plain_seconds is not None and (decided := self._run_plain(source, timeout)) is not None:
            return decided, 0, time.monotonic() - start
        if self._only_plain:
            return ("worker_died" if self._plain is None else "unsupported", None, ""), 0, time.monotonic() - start
        result, write_end = os.pipe()
        with open(result, "rb", 0) as pipe:  # noqa: PTH123 (a descriptor)
            try:
                with open(os.memfd_create("program"), "w+b", 0) as program:  # noqa: PTH123 (a descriptor)
                    program.write(source)
                    program.seek(0)
                    socket.send_fds(self._channel, [b"p"], [program.fileno(), write_end])
            except OSError as error:
                raise WorkerGoneError(str(error)) from error
            finally:
                os.close(write_end)
            late, wait_status, seconds = frames.ENDED.unpack(self._read(frames.ENDED.size, timeout))
            os.set_blocking(result, False)
            data = pipe.read(frames.MAX_RESULT_BYTES + 1) or b""  # None: a leftover process holds the pipe open
        return frames.judge(data, late, wait_status), wait_status, seconds

    def kill(self) -> None:
        """Kill the process and its children. In a fork of the owner, only close the sockets."""
        process, sockets = self._process, (self._socket, self._plain)
        self._process = self._socket = self._plain = None
        for end in filter(None, sockets):
            end.close()
        if process is not None and self._owner != os.getpid():
            process.returncode = 0  # not our child, so do not wait for it
        elif process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _run_plain(self, source: bytes, timeout: float) -> frames.Result | None:
        """Run a program in the shared child. None if it is not plain or did not finish: it then needs its own process."""
        if self._plain is None:
            self._renew_shared_child(timeout)
        if self._plain is None:
            return None
        data = b""
        with contextlib.suppress(OSError):  # timed out, or the child has ended
            self._plain.sendall(frames.LENGTH.pack(len(source)) + source)
            data = self._plain.recv(frames.MAX_RESULT_BYTES + 1)
        result = frames.judge(data, late=False, wait_status=0)
        if result[0] not in (*frames.DECIDED_WHEN_PLAIN, "unsupported"):
            self._renew_shared_child(timeout)
        return result if result[0] in frames.DECIDED_WHEN_PLAIN else None

    def _renew_shared_child(self, timeout: float) -> None:
        """Have the zygote replace the shared child; ``_plain`` stays None if the fork fails."""
        if self._plain is not None:
            self._plain.close()
            self._plain = None
        channel = self._channel
        channel.settimeout(timeout)
        try:
            channel.send(b"s")
            data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        except TimeoutError:
            raise
        except OSError as error:
            raise WorkerGoneError(str(error)) from error
        if not data:
            raise WorkerGoneError("the process ended")
        if descriptors:
            self._plain = socket.socket(fileno=descriptors[0])
            self._plain.set_inheritable(False)
            self._plain.settimeout(self._plain_seconds)

    @property
    def _channel(self) -> socket.socket:
        if self._socket is None:
            raise WorkerGoneError("another thread has stopped the process")
        return self._socket

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
            channel = self._channel
            try:
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

"""Raise SIGINT, SIGTERM and SIGHUP as an exception that a run can defer until its state is consistent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Raised when a signal asks this process to stop. Not an ``Exception``, so that no error handler swallows it.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.outcome = "nothing is lost: the same command does the work again"
        """What the interrupted command leaves and how it resumes; a caller that catches this may set a more precise text."""
        self.reported = True
        """Whether this rank reports the interruption."""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}; {self.outcome}"

    @property
    def exit_code(self) -> int:
        """The exit code that shells use for a process killed by this signal."""
        return 128 + self.signum


class Interruption:
    """Track the signal that this process received, and whether to raise it immediately.

    The first signal raises ``Interrupted`` in the main thread, immediately or once it is permitted. A second signal ends the
    process.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        """The signal that was received but not yet raised."""
        self.deferred = False
        """Whether a signal waits for ``check`` instead of being raised on arrival."""
        self.at_once: Callable[[], None] | None = None
        """Called before a second signal ends this process, to kill the processes it started."""
        self.requeue_signal: int | None = None
        """The signal by which Slurm announces the end of the job's time, handled like the others; None outside Slurm."""
        self._received = False
        self._terminals: list[int] = []

    def check(self) -> None:
        """Raise the deferred signal, if any.

        Raises:
            Interrupted: A signal is pending.
        """
        if self.signum is not None:
            signum, self.signum = self.signum, None
            raise Interrupted(signum)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Within this block, raise signals on arrival; raise a deferred one on entry."""
        before, self.deferred = self.deferred, False
        try:
            self.check()
            yield
        finally:
            self.deferred = before

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Defer signals within this block, such as an import that libraries retry, and raise them after it."""
        before, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = before
        self.check()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within this block; outside the main thread, where Python forbids it, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.signum, self.deferred, self.at_once, self._received = None, False, None, False
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        former = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.install()
        try:
            yield
        finally:
            for signum, handler in former.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)
            if self.requeue_signal is not None:
                signal.signal(self.requeue_signal, signal.SIG_DFL)
                self.requeue_signal = None

    def install(self) -> None:
        """Install the signal handlers, replacing any that a library installed in the meantime.

        SIGHUP stays ignored under ``nohup``.
        """
        if threading.current_thread() is threading.main_thread():
            for signum in (*SIGNALS, *([] if self.requeue_signal is None else [self.requeue_signal])):
                if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
                    signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._received:
            if self.at_once is not None:
                self.at_once()
            os._exit(128 + signum)
        self._received, self.signum = True, signum
        if signum == signal.SIGHUP:
            self._leave_terminals()
        if not self.deferred:
            self.check()

    def _leave_terminals(self) -> None:
        """Discard all further output: writes to a closed terminal fail, and the checkpoint is not yet saved."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


interruption = Interruption()
"""The instance of this process."""

"""SIGINT, SIGTERM and SIGHUP as an exception that a run may put off until its state is consistent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this process to end. Not an ``Exception``: no handler of errors may swallow it.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.outcome = "nothing is lost: the same command does the work again"
        """What the interrupted command leaves, and how it resumes; whoever catches this may know better."""
        self.reported = True
        """Whether this process is the one of all ranks that reports it."""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}; {self.outcome}"

    @property
    def exit_code(self) -> int:
        """What a shell reports of a process that the signal ends."""
        return 128 + self.signum


class Interruption:
    """Which signal this process has received, and whether it may be raised at once.

    The first signal raises ``Interrupted`` in the main thread, or as soon as it is allowed. A second one ends the process.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        """The signal that was received and not raised yet."""
        self.deferred = False
        """Whether a signal waits for ``check`` instead of being raised where it arrives."""
        self.at_once: Callable[[], None] | None = None
        """Called before a second signal ends this process, to end those that it has started."""
        self._received = False
        self._terminals: list[int] = []

    def check(self) -> None:
        """Raise the signal that was put off.

        Raises:
            Interrupted: there is one.
        """
        if self.signum is not None:
            signum, self.signum = self.signum, None
            raise Interrupted(signum)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A block in which a signal is raised where it arrives, one that was put off at its beginning."""
        before, self.deferred = self.deferred, False
        try:
            self.check()
            yield
        finally:
            self.deferred = before

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """A block that a signal does not interrupt, such as an import, which libraries try a second time; raised after it."""
        before, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = before
        self.check()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """A block in which the signals are handled so; only in the main thread, as Python has it."""
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

    def install(self) -> None:
        """Handle the signals, in the place of whatever handlers a library has installed meanwhile.

        SIGHUP stays ignored under ``nohup``.
        """
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
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
        """Discard what is printed from now on: a closed terminal fails every write, and the checkpoint is not saved yet."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


interruption = Interruption()
"""That of this process: signals are the process's, too."""

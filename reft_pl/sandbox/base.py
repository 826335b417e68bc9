"""The sandbox interface: run model-written programs and return their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

from reft_pl.errors import UserError
from reft_pl.types import ExecutionResult


class Sandbox(ABC):
    """Runs model-written programs. Each defines ``solution()``, and its return value is the answer.

    A sandbox never sees reference answers: the trainer compares.
    """

    @abstractmethod
    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in isolation from the trainer and from the other programs.

        Returns one result per program, in order. A program's failure is a result, never an exception.
        """

    def begin(self) -> Execution:
        """Open an execution that accepts programs one at a time, for example while a sampler is still decoding."""
        return DeferredExecution(self)

    def check(self) -> None:  # noqa: B027 (a sandbox that runs everywhere has nothing to check)
        """Fail before training if programs cannot run on this machine.

        Raises:
            UserError: programs cannot run.
        """

    def close(self) -> None:  # noqa: B027 (a sandbox without processes has nothing to do)
        """Stop the worker processes. The next program restarts them."""


class Execution(AbstractContextManager["Execution", None]):
    """Programs that run while more arrive. Leaving the ``with`` block cancels programs that have not started."""

    @abstractmethod
    def submit(self, program: str) -> None:
        """Add one program."""

    @abstractmethod
    def results(self) -> list[ExecutionResult]:
        """Wait for all programs and return their results in submission order."""

    def cancel(self) -> None:
        """Cancel programs that have not started."""

    def __exit__(self, *error: object) -> None:
        self.cancel()


class DeferredExecution(Execution):
    """Collects programs and passes them to ``Sandbox.run`` in one batch."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox
        self._programs: list[str] = []

    def submit(self, program: str) -> None:
        """Add one program."""
        self._programs.append(program)

    def results(self) -> list[ExecutionResult]:
        """Run all programs and return their results in submission order."""
        return self._sandbox.run(self._programs)


def check_limits(owner: str, timeout_seconds: float, memory_mb: int, workers: int) -> None:
    """Reject limits under which every program fails or no program ends.

    Raises:
        UserError: a limit is out of range.
    """
    if not 0 < timeout_seconds <= 86_400:
        raise UserError(f"{owner}: timeout_seconds is {timeout_seconds}, but it must be above 0 and at most 86400 (one day)")
    if memory_mb < 16:
        raise UserError(f"{owner}: memory_mb is {memory_mb}, but a program needs at least 16 MiB")
    if workers < 1:
        raise UserError(f"{owner}: workers is {workers}, but it must be at least 1")

"""The interface behind which model-written programs run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

from reft_pl.errors import UserError
from reft_pl.types import ExecutionResult


class Sandbox(ABC):
    """Runs programs that a model wrote. Each defines ``solution()``, whose return value is the answer.

    A sandbox never receives reference answers: the trainer compares.
    """

    @abstractmethod
    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in isolation from the trainer and from the others.

        Returns one result per program, in order. Never raises for a program's fault.
        """

    def begin(self) -> Execution:
        """Open an execution that takes programs one by one, for example while a sampler still decodes others."""
        return DeferredExecution(self)

    def check(self) -> None:  # noqa: B027 (a sandbox that runs everywhere has nothing to check)
        """Fail before training if programs cannot run on this machine.

        Raises:
            UserError: they cannot.
        """

    def close(self) -> None:  # noqa: B027 (a sandbox without processes has nothing to do)
        """Stop worker processes. The next program starts them again."""


class Execution(AbstractContextManager["Execution", None]):
    """Programs that run while more of them arrive. Leaving the ``with`` block drops programs that have not started."""

    @abstractmethod
    def submit(self, program: str) -> None:
        """Take one more program."""

    @abstractmethod
    def results(self) -> list[ExecutionResult]:
        """Wait for all programs and return their results, in the order of ``submit``."""

    def cancel(self) -> None:
        """Drop programs that have not started."""

    def __exit__(self, *error: object) -> None:
        self.cancel()


class DeferredExecution(Execution):
    """Collects programs and hands them to ``Sandbox.run`` in one batch."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox
        self._programs: list[str] = []

    def submit(self, program: str) -> None:
        """Take one more program."""
        self._programs.append(program)

    def results(self) -> list[ExecutionResult]:
        """Run all programs and return their results, in the order of ``submit``."""
        return self._sandbox.run(self._programs)


def check_limits(owner: str, timeout_seconds: float, memory_mb: int, workers: int) -> None:
    """Refuse limits under which every program fails or none ends.

    Raises:
        UserError: a limit is not positive, or not finite.
    """
    if not 0 < timeout_seconds <= 86_400:
        raise UserError(f"{owner}: timeout_seconds is {timeout_seconds}, but it must be above 0 and at most 86400, a day")
    if memory_mb < 16:
        raise UserError(f"{owner}: memory_mb is {memory_mb}, but a program needs at least 16")
    if workers < 1:
        raise UserError(f"{owner}: workers is {workers}, but at least one must run the programs")

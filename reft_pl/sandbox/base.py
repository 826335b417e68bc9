"""The interface behind which untrusted programs run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from reft_pl.types import ExecutionResult


class Sandbox(ABC):
    """Runs programs that a model wrote. Each defines ``solution()``, whose return value is the answer.

    Gold answers never come near it: comparison is the trainer's business.
    """

    @abstractmethod
    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in isolation from the trainer and from the others.

        Returns one result a program, in the order given. Never raises for a fault of a program.
        """

    def check(self) -> None:  # noqa: B027 (a sandbox that runs everywhere has nothing to check)
        """Find out, before anything is trained, whether programs can be run here.

        Raises:
            UserError: they cannot.
        """

    def close(self) -> None:  # noqa: B027 (a sandbox without processes has nothing to do)
        """Stop worker processes. The sandbox may be used again: they are started anew."""

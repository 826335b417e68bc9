"""The sandbox to use: Monty for what it can run, CPython for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.cpython import SCIENTIFIC, CPythonSandbox, require_confinement
from reft_pl.sandbox.monty import MontySandbox
from reft_pl.types import ExecutionResult, Status

_SECOND_OPINION = frozenset({Status.UNSUPPORTED, Status.SYNTAX_ERROR, Status.OUTPUT_TOO_LARGE})
"""What Monty alone does not decide: its parser refuses some programs that CPython takes, and it keeps what is printed."""


class TieredSandbox(Sandbox):
    """Runs programs in Monty first, and in CPython those that Monty does not support: ``yield``, inheritance, most modules.

    So no program is scored as wrong because of the interpreter, and ``ExecutionResult.backend`` tells which one decided. Where
    the machine cannot run the second sandbox, set ``second_tier`` to false: such programs then end as ``unsupported``.

    Args:
        timeout_seconds: Wall time of one program in either interpreter.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time.
        second_tier: Run in CPython what Monty does not support.
        allow_unsafe: Let the second sandbox run without seccomp; see ``CPythonSandbox``.
    """

    def __init__(
        self,
        timeout_seconds: float = 2.0,
        memory_mb: int = 256,
        workers: int = 2,
        second_tier: bool = True,
        allow_unsafe: bool = False,
    ):
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self.second_tier = second_tier
        self.allow_unsafe = allow_unsafe
        self._monty = MontySandbox(timeout_seconds, memory_mb, workers)
        self._cpython = CPythonSandbox(timeout_seconds, memory_mb, workers, allow_unsafe)

    def check(self) -> None:
        """Find out whether both tiers can run here; see ``Sandbox.check``."""
        if self.second_tier:
            require_confinement(self.allow_unsafe)

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in isolation; see ``Sandbox.run``.

        Raises:
            UserError: one of the sandboxes cannot run here.
        """
        self.check()
        results: dict[int, ExecutionResult] = {}
        first = [i for i, program in enumerate(programs) if not (self.second_tier and SCIENTIFIC.search(program))]
        results.update(zip(first, self._monty.run([programs[i] for i in first]), strict=True))
        if self.second_tier:
            second = [i for i in range(len(programs)) if i not in results or results[i].status in _SECOND_OPINION]
            results.update(zip(second, self._cpython.run([programs[i] for i in second]), strict=True))
        return [results[i] for i in range(len(programs))]

    def close(self) -> None:
        """Stop all workers; the next ``run`` starts them anew."""
        self._monty.close()
        self._cpython.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self._monty.worker_pids + self._cpython.worker_pids

"""The default sandbox: Monty, an interpreter of a Python subset that has no way out to begin with."""

from __future__ import annotations

from collections.abc import Sequence

from reft_pl.errors import UserError
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.limits import check_limits
from reft_pl.sandbox.pool import WorkerPool, WorkerStartError
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import ExecutionResult

_GRACE_SECONDS = 0.75
"""How long after its time limit a program's worker may stay silent: the interpreter is killed first, the worker only then."""


class MontySandbox(Sandbox):
    """Runs programs in pydantic-monty: no file system, no network, no processes, nothing of CPython to attack.

    A fresh interpreter session a program, in worker processes of our own; 0.3 ms a program. Lacks ``yield``, ``del``,
    inheritance and most modules: where a program may have failed for that, its status is ``unsupported`` and says nothing about
    the program. ``TieredSandbox`` runs those in CPython.

    Args:
        timeout_seconds: Wall time of one program.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time, each in its own process.
        recursion_depth: Deepest nesting of calls.
    """

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2, recursion_depth: int = 1000):
        check_limits(type(self).__name__, timeout_seconds, memory_mb, workers)
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self.recursion_depth = recursion_depth
        self._pool: WorkerPool | None = None

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in a session of its own; see ``Sandbox.run``.

        Raises:
            UserError: pydantic-monty cannot be started.
        """
        if self._pool is None:
            self._pool = WorkerPool(self._make_worker, self.workers, self.timeout_seconds + _GRACE_SECONDS, "monty")
        try:
            return self._pool.run(programs)
        except WorkerStartError as error:
            raise UserError(
                f"MontySandbox cannot start pydantic-monty: {error}; reinstall it, or use CPythonSandbox"
            ) from error

    def close(self) -> None:
        """Stop the workers; the next ``run`` starts them anew."""
        if self._pool is not None:
            self._pool.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self._pool.pids if self._pool is not None else []

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pool": None}  # a copy has workers of its own

    def _make_worker(self) -> Worker:
        arguments = (float(self.timeout_seconds), self.memory_mb, self.recursion_depth)
        folders = package_folders(("pydantic_monty",)).values()
        return Worker("reft_pl.sandbox.monty_worker", arguments, list(folders), isolated=False)

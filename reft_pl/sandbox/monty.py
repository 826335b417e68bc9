"""The sandbox for machines whose kernel cannot confine CPython: Monty, an interpreter of a Python subset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reft_pl.sandbox.base import Sandbox, check_limits
from reft_pl.sandbox.pool import PoolExecution, WorkerPool
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import ExecutionResult, Status

_GRACE_SECONDS = 0.75
"""How long a worker may stay silent after a program's deadline: the interpreter is killed first, the worker only then."""

_DECIDED = frozenset({Status.OK, Status.SYNTAX_ERROR})
"""Verdicts that hold for CPython too: an answer of a faithful program, and what CPython's own parser refuses."""


class MontySandbox(Sandbox):
    """Runs in pydantic-monty what a syntax check proves faithful, and answers ``unsupported`` to everything else.

    Needs ``pip install 'reft-pl[monty]'``. Monty differs from Python (lazy iterators, rounding, sets, ``Decimal``), so only
    plain arithmetic, lists, branches and loops run (``reft_pl.sandbox.faithful``), and only an answer counts: an error, a
    timeout or exhausted memory may be the interpreter's own. On Linux the kernel confines its processes as far as it can. Use
    ``CPythonSandbox``, the default, wherever it runs.

    Args:
        timeout_seconds: Wall time of one program.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time, each in its own process.
    """

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2):
        check_limits(type(self).__name__, timeout_seconds, memory_mb, workers)
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self._pool: WorkerPool | None = None

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in its own session; see ``Sandbox.run``.

        Raises:
            UserError: pydantic-monty cannot be started.
        """
        if self._pool is None:
            self._pool = WorkerPool(self._make_worker, self.workers, self.timeout_seconds + _GRACE_SECONDS, "monty")
        pool = self._pool
        refusal = "MontySandbox cannot start pydantic-monty: {}; run pip install 'reft-pl[monty]', or use CPythonSandbox"
        with PoolExecution(lambda program: pool, refusal) as execution:
            for program in programs:
                execution.submit(program)
            return [_decided(result) for result in execution.results()]

    def close(self) -> None:
        """Stop the workers; the next program starts them again."""
        if self._pool is not None:
            self._pool.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the running workers."""
        return self._pool.pids if self._pool is not None else []

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pool": None}  # a copy starts its own workers

    def _make_worker(self) -> Worker:
        arguments = (float(self.timeout_seconds), self.memory_mb)
        folders = package_folders(("pydantic_monty",)).values()
        return Worker("reft_pl.sandbox.monty_worker", arguments, list(folders), isolated=False)


def _decided(result: ExecutionResult) -> ExecutionResult:
    if result.status in _DECIDED:
        return result
    return replace(result, status=Status.UNSUPPORTED, detail=result.detail or result.status.value)

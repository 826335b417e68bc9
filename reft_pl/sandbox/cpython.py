"""The default sandbox: CPython, one confined process per program."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from reft_pl.errors import UserError
from reft_pl.sandbox.base import Execution, Sandbox, check_limits
from reft_pl.sandbox.pool import PoolExecution, WorkerPool
from reft_pl.sandbox.seccomp import seccomp_available
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import ExecutionResult

SCIENTIFIC = re.compile(r"\b(?:sympy|numpy|mpmath|np)\b")
"""Programs that name one of these run in the zygote that has them loaded."""

_GRACE_SECONDS = 0.75
"""How long a zygote may stay silent after a program's deadline: the program is killed first, the zygote only then."""

_SCIENTIFIC_PACKAGES = ("numpy", "sympy", "mpmath")


class CPythonSandbox(Sandbox):
    """Runs each program in its own process, forked from a clean, single-threaded zygote (Linux only).

    The process has no file system (Landlock), some forty system calls (seccomp), no capabilities, no new files, processes or
    threads, no executable memory, limited memory and CPU time, and /dev/null for standard streams; at its deadline it is killed
    from outside. It can compute, and return one number or one letter. In scope without import: ``math``, and ``sympy`` for
    programs that name it. Importable: the standard library's modules for arithmetic, text and dates, NumPy, SymPy, mpmath.

    The zygote never holds a program's text or result, so a program finds nothing of its predecessors in the memory it inherits.
    A program can report only what it could bring about honestly: an answer it could return, a failure it could cause.

    Not covered: side channels of time and load.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time; each zygote forks one at a time.
        allow_unsafe: Run even if the kernel lacks seccomp: programs can then do what you can, short of opening files.
    """

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2, allow_unsafe: bool = False):
        check_limits(type(self).__name__, timeout_seconds, memory_mb, workers)
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self.allow_unsafe = allow_unsafe
        self._pools: dict[bool, WorkerPool] = {}

    def check(self) -> None:
        """Fail before training if this machine cannot confine programs.

        Raises:
            UserError: this is not Linux, or there is no seccomp and ``allow_unsafe`` is not set.
        """
        if not sys.platform.startswith("linux"):
            raise UserError("CPythonSandbox needs Linux; on this machine set --model.sandbox MontySandbox")
        if not (self.allow_unsafe or seccomp_available()):
            raise UserError(
                "CPythonSandbox needs seccomp, which this kernel or container lacks; set --model.sandbox MontySandbox, or "
                "--model.sandbox.allow_unsafe true if you trust the model with your account"
            )

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in its own process; see ``Sandbox.run``.

        Raises:
            UserError: this machine cannot confine programs.
        """
        with self.begin() as execution:
            for program in programs:
                execution.submit(program)
            return execution.results()

    def begin(self) -> Execution:
        """Open an execution that runs programs as they arrive; see ``Sandbox.begin``.

        Raises:
            UserError: this machine cannot confine programs.
        """
        self.check()
        return PoolExecution(self._pool, "CPythonSandbox cannot start its processes: {}; MontySandbox may run here")

    def close(self) -> None:
        """Stop the zygotes; the next program starts them again."""
        for pool in self._pools.values():
            pool.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the running zygotes."""
        return [pid for pool in self._pools.values() for pid in pool.pids]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pools": {}}  # a copy starts its own zygotes

    def _pool(self, program: str) -> WorkerPool:
        scientific = SCIENTIFIC.search(program) is not None
        if scientific not in self._pools:
            make = self._scientific_worker if scientific else self._plain_worker
            self._pools[scientific] = WorkerPool(make, self.workers, self.timeout_seconds + _GRACE_SECONDS, "cpython")
        return self._pools[scientific]

    def _plain_worker(self, packages: tuple[str, ...] = (), import_paths: Sequence[str] = ()) -> Worker:
        arguments = (float(self.timeout_seconds), self.memory_mb, packages, self.allow_unsafe)
        return Worker("reft_pl.sandbox.zygote", arguments, import_paths, isolated=True)

    def _scientific_worker(self) -> Worker:
        folders = package_folders(_SCIENTIFIC_PACKAGES)
        return self._plain_worker(tuple(folders), list(dict.fromkeys(folders.values())))

"""The second sandbox: CPython itself, one confined process a program."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from reft_pl.errors import UserError
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.limits import check_limits
from reft_pl.sandbox.pool import WorkerPool, WorkerStartError
from reft_pl.sandbox.seccomp import seccomp_available
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import ExecutionResult

SCIENTIFIC = re.compile(r"\b(?:sympy|numpy|mpmath|np)\b")
"""Programs that name one of these run in the zygote that has them loaded."""

_GRACE_SECONDS = 0.75
"""How long after a program's deadline its zygote may stay silent: the program is killed first, the zygote only then."""

_SCIENTIFIC_MODULES = ("numpy", "sympy", "mpmath")


def require_confinement(allow_unsafe: bool = False) -> None:
    """Say now, not at the first program that needs it, that this machine cannot run ``CPythonSandbox``.

    Raises:
        UserError: this is not Linux, or there is no seccomp and ``allow_unsafe`` is not set.
    """
    if not sys.platform.startswith("linux"):
        raise UserError("CPythonSandbox needs Linux: use MontySandbox, or TieredSandbox with second_tier false")
    if not (allow_unsafe or seccomp_available()):
        raise UserError(
            "CPythonSandbox finds no seccomp here and runs no programs unconfined: use MontySandbox, or TieredSandbox with "
            "second_tier false, or set allow_unsafe if you trust the model with your account"
        )


class CPythonSandbox(Sandbox):
    """Runs programs in CPython, each in a process forked for it alone from a clean, single-threaded zygote (Linux only).

    The process has no file system (Landlock), some forty system calls (seccomp), no capabilities, no new files, processes or
    threads, limited memory and CPU time, and /dev/null for standard streams; at its deadline it is killed from outside. What it
    can do is compute, and return one number or one letter. In scope without import: ``math``, and ``sympy`` for programs that
    name it. Importable: the standard library's modules for arithmetic, text and dates, NumPy, SymPy.

    Not covered: side channels of time and load, and a program that digs its own result frame out of memory, which gets it
    nothing that ``return`` would not.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time, each zygote forking one at a time.
        allow_unsafe: Run also where the kernel offers no seccomp: programs can then do what you can, short of opening files.
    """

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2, allow_unsafe: bool = False):
        check_limits(type(self).__name__, timeout_seconds, memory_mb, workers)
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self.allow_unsafe = allow_unsafe
        self._pools: dict[bool, WorkerPool] = {}

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in a process of its own; see ``Sandbox.run``.

        Raises:
            UserError: this machine cannot confine programs.
        """
        require_confinement(self.allow_unsafe)
        results: dict[int, ExecutionResult] = {}
        for scientific in (False, True):
            indices = [i for i, program in enumerate(programs) if bool(SCIENTIFIC.search(program)) == scientific]
            if indices:
                ran = self._run_in(scientific, [programs[i] for i in indices])
                results.update(zip(indices, ran, strict=True))
        return [results[i] for i in range(len(programs))]

    def close(self) -> None:
        """Stop the zygotes; the next ``run`` starts them anew."""
        for pool in self._pools.values():
            pool.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the zygotes that run now."""
        return [pid for pool in self._pools.values() for pid in pool.pids]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pools": {}}  # a copy has zygotes of its own

    def _run_in(self, scientific: bool, programs: Sequence[str]) -> list[ExecutionResult]:
        if scientific not in self._pools:
            make = self._make_scientific_worker if scientific else self._make_worker
            self._pools[scientific] = WorkerPool(make, self.workers, self.timeout_seconds + _GRACE_SECONDS, "cpython")
        try:
            return self._pools[scientific].run(programs)
        except WorkerStartError as error:
            raise UserError(f"CPythonSandbox cannot start its processes: {error}; MontySandbox may run here") from error

    def _make_worker(self, modules: tuple[str, ...] = (), import_paths: Sequence[str] = ()) -> Worker:
        arguments = (float(self.timeout_seconds), self.memory_mb, modules, self.allow_unsafe)
        return Worker("reft_pl.sandbox.zygote", arguments, import_paths, isolated=True)

    def _make_scientific_worker(self) -> Worker:
        folders = package_folders(_SCIENTIFIC_MODULES)
        return self._make_worker(tuple(folders), list(dict.fromkeys(folders.values())))

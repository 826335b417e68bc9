"""The default sandbox: programs run by CPython in confined processes."""

from __future__ import annotations

import re
import sys

from reft_pl.errors import UserError
from reft_pl.sandbox.pool import PooledSandbox
from reft_pl.sandbox.seccomp import seccomp_available
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import Status

_SCIENTIFIC = re.compile(r"\b(?:sympy|numpy|mpmath|np)\b")
_PLAIN_SECONDS = 0.25  # time limit in the shared child; a slower program is rerun in its own process
_SCIENTIFIC_PACKAGES = ("numpy", "sympy", "mpmath")


class CPythonSandbox(PooledSandbox):
    """Runs each program in a process forked from a clean, single-threaded zygote (Linux only); plain programs share one.

    The process has no file system (Landlock), about forty system calls (seccomp), no capabilities, no new files, processes or
    threads, no executable memory, limited memory and CPU time, and /dev/null for standard streams. At its deadline it is killed
    from outside. It can compute, and return one number or one letter. In scope without import: ``math``, and ``sympy`` for
    programs that name it. Importable: the standard library's modules for arithmetic, text and dates, NumPy, SymPy, mpmath.

    The zygote never holds a program's source or result, so the memory that a program inherits holds no trace of earlier ones.
    Plain programs share a process because their syntax gives them no way to inspect it (``reft_pl.sandbox.plain``).
    A program can report only what an honest program could: an answer that it could return, or a failure that it could cause.

    Not covered: timing and load side channels.

    Args:
        timeout_seconds: Wall time limit of one program in seconds, compilation included.
        memory_mb: Memory that one program may allocate, in MiB.
        workers: Number of programs that run at the same time; each zygote forks one at a time.
        allow_unsafe: Run even if the kernel lacks seccomp. Programs then have your account's rights, except opening files.
    """

    backend = "cpython"
    refusal = "CPythonSandbox cannot start its processes ({}); set --model.sandbox PlainSandbox, which may run here"

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2, allow_unsafe: bool = False):
        super().__init__(timeout_seconds, memory_mb, workers)
        self.allow_unsafe = allow_unsafe

    def check(self) -> None:
        """Fail before training if this machine cannot confine programs.

        Raises:
            UserError: this is not Linux, or seccomp is missing and ``allow_unsafe`` is not set.
        """
        if not sys.platform.startswith("linux"):
            raise UserError("CPythonSandbox needs Linux; on this machine set --model.sandbox PlainSandbox")
        if not (self.allow_unsafe or seccomp_available()):
            raise UserError(
                "CPythonSandbox needs seccomp, which this kernel or container lacks; set --model.sandbox PlainSandbox, or "
                "--model.sandbox.allow_unsafe true if you trust the model with your account"
            )

    def kind_of(self, program: str) -> str:
        """Return ``scientific`` for programs that name NumPy, SymPy or mpmath; their zygote preloads these packages."""
        return "scientific" if _SCIENTIFIC.search(program) else "standard"

    def make_worker(self, kind: str) -> Worker:
        """Create a zygote worker."""
        folders = package_folders(_SCIENTIFIC_PACKAGES) if kind == "scientific" else {}
        arguments = (float(self.timeout_seconds), self.memory_mb, tuple(folders), self.allow_unsafe, False)
        paths = list(dict.fromkeys(folders.values()))
        return Worker(arguments, paths, None if folders else min(self.timeout_seconds, _PLAIN_SECONDS))


class PlainSandbox(PooledSandbox):
    """Runs plain programs in CPython (see ``reft_pl.sandbox.plain``); all others get the status ``unsupported``.

    Use it on machines with a kernel that cannot confine programs: a plain program can do nothing but arithmetic. Any
    confinement that the kernel does offer still applies. Use ``CPythonSandbox``, the default, wherever it runs; both take the
    same limits.
    """

    backend = "cpython"
    refusal = "PlainSandbox cannot start its processes: {}"
    silent = Status.UNSUPPORTED

    def make_worker(self, kind: str) -> Worker:
        """Create a zygote worker that forks only the shared child; there is one kind of worker."""
        arguments = (float(self.timeout_seconds), self.memory_mb, (), True, True)
        return Worker(arguments, [], self.timeout_seconds, only_plain=True)

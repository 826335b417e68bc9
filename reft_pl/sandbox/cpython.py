"""The default sandbox: CPython, one confined process per program."""

from __future__ import annotations

import re
import sys

from reft_pl.errors import UserError
from reft_pl.sandbox.pool import PooledSandbox
from reft_pl.sandbox.seccomp import seccomp_available
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import Status

_SCIENTIFIC = re.compile(r"\b(?:sympy|numpy|mpmath|np)\b")
_PLAIN_SECONDS = 0.25  # of a program in a shared child; one that takes longer starts again in its own process
_SCIENTIFIC_PACKAGES = ("numpy", "sympy", "mpmath")


class CPythonSandbox(PooledSandbox):
    """Runs programs in processes forked from a clean, single-threaded zygote (Linux only): one for each, but for plain ones.

    The process has no file system (Landlock), some forty system calls (seccomp), no capabilities, no new files, processes or
    threads, no executable memory, limited memory and CPU time, and /dev/null for standard streams; at its deadline it is killed
    from outside. It can compute, and return one number or one letter. In scope without import: ``math``, and ``sympy`` for
    programs that name it. Importable: the standard library's modules for arithmetic, text and dates, NumPy, SymPy, mpmath.

    The zygote never holds a program's text or result, so a program finds nothing of its predecessors in the memory it inherits.
    Plain programs share a process: their syntax gives them nothing to look with (``reft_pl.sandbox.plain``).
    A program can report only what it could bring about honestly: an answer it could return, a failure it could cause.

    Not covered: side channels of time and load.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time; each zygote forks one at a time.
        allow_unsafe: Run even if the kernel lacks seccomp: programs can then do what you can, short of opening files.
    """

    backend = "cpython"
    refusal = "CPythonSandbox cannot start its processes: {}; PlainSandbox may run here"

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2, allow_unsafe: bool = False):
        super().__init__(timeout_seconds, memory_mb, workers)
        self.allow_unsafe = allow_unsafe

    def check(self) -> None:
        """Fail before training if this machine cannot confine programs.

        Raises:
            UserError: this is not Linux, or there is no seccomp and ``allow_unsafe`` is not set.
        """
        if not sys.platform.startswith("linux"):
            raise UserError("CPythonSandbox needs Linux; on this machine set --model.sandbox PlainSandbox")
        if not (self.allow_unsafe or seccomp_available()):
            raise UserError(
                "CPythonSandbox needs seccomp, which this kernel or container lacks; set --model.sandbox PlainSandbox, or "
                "--model.sandbox.allow_unsafe true if you trust the model with your account"
            )

    def kind_of(self, program: str) -> str:
        """``scientific`` for programs that name NumPy, SymPy or mpmath: their zygote has these loaded."""
        return "scientific" if _SCIENTIFIC.search(program) else "standard"

    def make_worker(self, kind: str) -> Worker:
        """Make a zygote."""
        folders = package_folders(_SCIENTIFIC_PACKAGES) if kind == "scientific" else {}
        arguments = (float(self.timeout_seconds), self.memory_mb, tuple(folders), self.allow_unsafe, False)
        paths = list(dict.fromkeys(folders.values()))
        return Worker(arguments, paths, None if folders else min(self.timeout_seconds, _PLAIN_SECONDS))


class PlainSandbox(PooledSandbox):
    """Runs plain programs in CPython (see ``reft_pl.sandbox.plain``), and answers ``unsupported`` to everything else.

    For machines whose kernel cannot confine programs: a plain one can do arithmetic and nothing else. What the kernel has of
    confinement applies here, too. Use ``CPythonSandbox``, the default, wherever it runs; the settings are the same.
    """

    backend = "cpython"
    refusal = "PlainSandbox cannot start its processes: {}"
    silent = Status.UNSUPPORTED

    def make_worker(self, kind: str) -> Worker:
        """Make a zygote that forks only the child for plain programs; there is one kind."""
        arguments = (float(self.timeout_seconds), self.memory_mb, (), True, True)
        return Worker(arguments, [], self.timeout_seconds, only_plain=True)

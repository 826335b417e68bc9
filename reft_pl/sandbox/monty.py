"""The sandbox for machines whose kernel cannot confine CPython: Monty, an interpreter of a Python subset."""

from __future__ import annotations

from reft_pl.sandbox.pool import PooledSandbox
from reft_pl.sandbox.worker import Worker, package_folders
from reft_pl.types import Status


class MontySandbox(PooledSandbox):
    """Runs in pydantic-monty what a syntax check admits, and answers ``unsupported`` to everything else.

    Needs ``pip install 'reft-pl[monty]'``. Monty differs from Python (lazy iterators, rounding, sets, ``Decimal``), so only
    plain arithmetic, lists, branches and loops run (``reft_pl.sandbox.faithful``), and only an answer counts: an error, a
    timeout or exhausted memory may be the interpreter's own. On Linux the kernel confines its processes as far as it can. Use
    ``CPythonSandbox``, the default, wherever it runs.

    Args:
        timeout_seconds: Wall time of one program.
        memory_mb: What one program may allocate, in MiB.
        workers: Programs that run at the same time, each in its own process.
    """

    backend = "monty"
    refusal = "MontySandbox cannot start pydantic-monty: {}; run pip install 'reft-pl[monty]', or use CPythonSandbox"
    silent = Status.UNSUPPORTED

    def make_worker(self, kind: str) -> Worker:
        """Make a worker that owns an interpreter; there is one kind."""
        arguments = (float(self.timeout_seconds), self.memory_mb)
        folders = package_folders(("pydantic_monty",)).values()
        return Worker("reft_pl.sandbox.monty_worker", arguments, list(folders), isolated=False)

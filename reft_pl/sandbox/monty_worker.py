"""The process that owns one Monty interpreter, so that neither its crash, nor a huge result, nor a hang reaches the trainer.

Needs pydantic-monty and the standard library only. The interpreter itself is another process, which pydantic-monty starts,
supervises and replaces; every program gets a fresh session in it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import sysconfig
import time

from pydantic_monty import CollectString, Monty, MontyCrashedError, MontyError, ResourceLimits

from reft_pl.sandbox import confinement, frames, values
from reft_pl.sandbox.channel import Channel, read_all
from reft_pl.sandbox.faithful import unfaithful_part
from reft_pl.sandbox.seccomp import INTERPRETER_CALLS, SeccompFilter, SeccompUnavailableError

_GRACE_SECONDS = 0.25
"""How long after its time limit the interpreter may take to notice before it is killed."""

_MAX_OUTPUT_BYTES = 1 << 20
_PREFIX, _CALL = "import math\n", "\n\nsolution()"


def main(timeout_seconds: float, memory_mb: int) -> None:
    """Serve programs until the trainer closes the socket; see ``MontySandbox`` for the limits."""
    channel = Channel()
    limits = ResourceLimits(
        max_feed_duration_secs=timeout_seconds,
        max_total_sleep_secs=timeout_seconds,
        max_memory=memory_mb << 20,
        max_recursion_depth=1000,
    )
    with contextlib.ExitStack() as stack:
        try:
            if sys.platform == "linux":
                confine(memory_mb << 20)
            grace = timeout_seconds + _GRACE_SECONDS
            monty = Monty(min_processes=1, max_processes=1, request_timeout=grace, feed_duration_limit_grace=_GRACE_SECONDS)
            pool = stack.enter_context(monty)
            run_program(pool, b"def solution():\n return 1", limits)
        except (MontyError, OSError) as error:
            channel.send(frames.greeting(str(error)))
            return
        channel.send(frames.greeting())
        while (descriptors := channel.receive()) is not None:
            channel.send(frames.ENDED.pack(False, 0, _serve(pool, limits, *descriptors)))


def confine(memory_bytes: int) -> None:
    """Bind this process and the interpreter that it starts as far as the kernel can: see ``reft_pl.sandbox.confinement``.

    Files: only the interpreter's own and Python's can be read.
    """
    confinement.forbid_new_privileges()
    confinement.drop_capabilities()
    binary = os.environ.get("MONTY_BIN") or shutil.which("monty", path=sysconfig.get_path("scripts")) or ""
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/proc/self", "/dev/null")
    readable = (binary, sysconfig.get_path("stdlib"), *sys.path[1:], *system)
    confinement.restrict_file_system([path for path in readable if path])
    confinement.limit(
        (resource.RLIMIT_AS, confinement.address_space() + 2 * memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    )
    with contextlib.suppress(SeccompUnavailableError):
        SeccompFilter(also=INTERPRETER_CALLS).install()


def _serve(pool: Monty, limits: ResourceLimits, source_fd: int, result_fd: int) -> float:
    start = time.perf_counter()
    try:
        os.write(result_fd, run_program(pool, read_all(source_fd), limits))
    finally:
        os.close(source_fd)
        os.close(result_fd)
    return time.perf_counter() - start


def run_program(pool: Monty, source: bytes, limits: ResourceLimits) -> bytes:
    """Run one program in its own session and return what goes into its result pipe.

    Raises:
        MontyCrashedError: the interpreter died, not of the time limit: the trainer starts another worker and tries again.
    """
    try:
        text = frames.decode_source(source)
        if part := unfaithful_part(text):
            return frames.encode_failure("unsupported", part)
    except (SyntaxError, ValueError) as error:
        return frames.encode_failure("syntax_error", type(error).__name__)
    except (MemoryError, RecursionError) as error:
        return frames.encode_failure("unsupported", type(error).__name__)
    try:
        with pool.checkout(limits=limits, os_policy={"random_start": {"seed": 0}}) as session:
            value = session.feed_run(_PREFIX + text + _CALL, print_callback=CollectString(_MAX_OUTPUT_BYTES))
    except MontyCrashedError as error:
        if not error.timed_out:
            raise
        return frames.encode_failure("unsupported", "timeout")
    except MontyError as error:
        return frames.encode_failure("unsupported", str(error))
    body = values.encode_value(value)
    status = frames.decode_body(body)[0]
    return frames.COMPILED + body if status == "ok" else frames.encode_failure("unsupported", status)

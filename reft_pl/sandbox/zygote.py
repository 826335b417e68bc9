"""The process that forks one child per program: clean, single-threaded, started by exec, never a fork of the trainer.

It imports what programs may use, gives up the file system, and then serves: receive two descriptors, fork, wait for the child's
end or its deadline, and report how it ended. The child confines itself, reads the program from one descriptor and writes its
result to the other. Neither enters this process, so no later child can find them in memory that it inherits. Standard library
only (the scientific zygote also loads NumPy and SymPy).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import resource
import select
import signal
import sys
import time
import types
from pathlib import Path

from reft_pl.sandbox import confinement, frames, values
from reft_pl.sandbox.channel import Channel, read_all
from reft_pl.sandbox.preload import STANDARD_MODULES, import_package, preloading
from reft_pl.sandbox.seccomp import SeccompFilter, SeccompUnavailableError

_RESULT_FD = 3
_SEED = 0  # every program draws the same random numbers


def main(timeout_seconds: float, memory_mb: int, packages: tuple[str, ...], allow_unsafe: bool) -> None:
    """Serve programs until the trainer closes the socket.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What a program may allocate beyond what the zygote holds, in MiB.
        packages: Third-party packages to preload; programs find them in scope by name.
        allow_unsafe: Serve even if the kernel lacks seccomp.
    """
    channel = Channel()
    seccomp = None
    try:
        with contextlib.suppress(*([SeccompUnavailableError] if allow_unsafe else [])):
            seccomp = SeccompFilter(writable_fds=(1, 2, _RESULT_FD))
        scope: dict[str, types.ModuleType] = {"math": math}
        with preloading():
            for name in STANDARD_MODULES:
                importlib.import_module(name)
            scope |= {name: import_package(name) for name in packages}
        sys.modules["random"].seed(_SEED)
        if "numpy" in scope:
            scope["numpy"].random.seed(_SEED)
        run = ProgramRunner(scope, memory_mb, math.ceil(timeout_seconds) + 1, seccomp)
        confinement.forbid_new_privileges()
        confinement.forbid_tracing()
        confinement.drop_capabilities()
        if len(list(Path("/proc/self/task").iterdir())) != 1:
            raise OSError(0, "an imported module started threads")  # noqa: TRY301 (the reason goes to the trainer)
        confinement.restrict_file_system()
        _hide_ourselves()
        _check_child(run)
    except Exception as error:
        channel.send(frames.greeting(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"))
        return
    gc.collect()
    gc.freeze()  # these objects stay shared with every child
    channel.send(frames.greeting())
    while (descriptors := channel.receive()) is not None:
        channel.send(frames.ENDED.pack(*supervise(run, *descriptors, timeout_seconds)))


def _check_child(run: ProgramRunner) -> None:
    """Raise OSError if a child cannot confine itself and run a program (an empty one)."""
    if (wait_status := supervise(run, os.dup(0), os.dup(0), 60.0)[1]) != 0:
        raise OSError(0, f"a confined process does not run here (wait status {wait_status})")


def _hide_ourselves() -> None:
    """Make the program's world look like a fresh interpreter: no path to import from, none of our modules in sight."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.argv = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == "reft_pl"]:
        del sys.modules[name]


def supervise(run: ProgramRunner, source_fd: int, result_fd: int, timeout_seconds: float) -> tuple[bool, int, float]:
    """Fork a child that runs the program and wait for its end.

    Returns whether it was killed at its deadline, its wait status, and its wall time in seconds.
    """
    start = time.monotonic()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        pid = frames.NOT_STARTED
    if pid == 0:
        try:
            os.setpgid(0, 0)
            confinement.die_with_parent(parent)
            run(source_fd, result_fd)
        finally:
            os._exit(70)
    os.close(source_fd)
    os.close(result_fd)
    if pid == frames.NOT_STARTED:
        return False, frames.NOT_STARTED, 0.0
    pidfd = os.pidfd_open(pid)
    try:
        ended = _wait(pidfd, start + timeout_seconds)
    finally:
        os.close(pidfd)
    # The group dies before its leader is reaped: until then its number cannot belong to anybody else.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, wait_status = os.waitpid(pid, 0)
    return not ended, wait_status, time.monotonic() - start


def _wait(pidfd: int, deadline: float) -> bool:
    """Whether the process ends before the deadline."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poller.poll(math.ceil(left * 1000)):
            return True
    return False


class ProgramRunner:
    """What a child does: confine itself, run one program, write its result, end. Never returns.

    Args:
        scope: Names that programs find defined.
        memory_mb: What a program may allocate beyond what is mapped now, in MiB.
        cpu_seconds: Limit of its CPU time.
        seccomp: The filter; None only if an unsafe sandbox was asked for.
    """

    def __init__(self, scope: dict[str, types.ModuleType], memory_mb: int, cpu_seconds: int, seccomp: SeccompFilter | None):
        self._scope = scope
        self._memory_bytes = confinement.address_space() + (memory_mb << 20)
        self._headroom_kb = memory_mb << 10
        self._cpu_seconds = cpu_seconds
        self._seccomp = seccomp
        self._number_types, self._expression_type = values.loaded_number_types()

    def __call__(self, source_fd: int, result_fd: int) -> None:
        """Run the program behind ``source_fd``, write its result to ``result_fd``, and end the process."""
        write, leave = os.write, os._exit  # bound before the program can replace them
        source = read_all(source_fd)
        os.dup2(result_fd, _RESULT_FD)
        os.closerange(_RESULT_FD + 1, 256)  # beyond the socket, which is at the first free number from 64 on
        confinement.limit_resources(self._memory_bytes, self._cpu_seconds)
        if self._seccomp is not None:
            self._seccomp.install()
        code = self._compile(source)
        del source
        if isinstance(code, bytes):
            write(_RESULT_FD, code)
        else:
            write(_RESULT_FD, frames.COMPILED)
            write(_RESULT_FD, self._outcome(code))
        leave(0)  # no atexit handlers, no finalizers, no flushing of what the program printed

    def _outcome(self, code: types.CodeType) -> bytes:
        memory_error, base_exception = MemoryError, BaseException
        encode_failure, encode_value, type_name = frames.encode_failure, values.encode_value, values.type_name
        out_of_memory = encode_failure("memory")  # built while memory is left
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        namespace = module.__dict__
        namespace.update(self._scope)
        is_callable, missing = callable, object()
        try:
            exec(code, namespace)  # what the whole package confines
            solution = namespace.get("solution", missing)
            if solution is missing or not is_callable(solution):
                return encode_failure("no_solution")
            return encode_value(solution(), self._number_types, self._expression_type)
        except memory_error:
            return out_of_memory
        except base_exception as error:
            return encode_failure("exception", type_name(error))

    def _compile(self, source: bytes) -> types.CodeType | bytes:
        resident_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return compile(frames.decode_source(source), "<program>", "exec", dont_inherit=True)
        except MemoryError:
            # The parser raises it for nesting beyond its stack, too: the memory really used tells the two apart.
            used_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident_kb
            if used_kb > self._headroom_kb // 4:
                return frames.encode_failure("memory", "while compiling")
            return frames.encode_failure("syntax_error", "nested too deeply")
        except BaseException as error:
            return frames.encode_failure("syntax_error", type(error).__name__)

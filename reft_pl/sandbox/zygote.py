"""The process that forks one child a program: clean, single-threaded, started by exec, never a fork of the trainer.

It imports what programs may use, locks itself away from the file system, and then serves: read a program, fork, let the child
confine itself and run it, wait for its end or its deadline, pass the child's frame on. No untrusted byte is interpreted here
but the few of that frame. Standard library only (SymPy and NumPy are preloaded in the zygote of programs that name them).
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
import resource
import select
import signal
import sys
import time
import types
from pathlib import Path

from reft_pl.sandbox import confinement, frames, values
from reft_pl.sandbox.channel import Channel
from reft_pl.sandbox.preload import import_package, import_standard_modules
from reft_pl.sandbox.seccomp import SeccompFilter, SeccompUnavailableError

_RESULT_FD = 3
_NONCE_BYTES = 16
_ATTEMPTS = 3
_SEED = 0  # every program draws the same numbers, whatever ran before it
_KILLED_FROM_OUTSIDE = frames.encode_failure("killed", f"signal {int(signal.SIGKILL)}")
_FRAME_LIMIT = 4 + _NONCE_BYTES + frames.MAX_BODY_BYTES


def main(timeout_seconds: float, memory_mb: int, modules: tuple[str, ...], allow_unsafe: bool) -> None:
    """Serve programs until the trainer closes the socket.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What a program may allocate beyond what the zygote holds, in MiB.
        modules: Third-party modules to preload; in the programs' scope by their name.
        allow_unsafe: Serve even where the kernel has no seccomp.
    """
    channel = Channel()
    scope: dict[str, types.ModuleType] = {"math": math}
    import_standard_modules()
    scope |= {name: import_package(name) for name in modules}
    if "numpy" in scope:
        scope["numpy"].random.seed(_SEED)
    try:
        seccomp = _filter_if_allowed(allow_unsafe)
        _check_surroundings()
    except OSError as error:
        channel.reply(frames.encode_failure("unsupported", error.strerror or str(error)), 0.0)
        return
    run = ProgramRunner(scope, memory_mb, math.ceil(timeout_seconds) + 1, seccomp)
    confinement.forbid_new_privileges()
    confinement.forbid_tracing()
    confinement.deny_file_system()
    confinement.drop_capabilities()
    _hide_ourselves()
    gc.collect()
    gc.freeze()  # what is here stays shared with every child
    channel.reply(frames.encode_failure("unsupported", frames.READY), 0.0)
    while (source := channel.receive()) is not None:
        start = time.perf_counter()
        body = run_program(run, source, time.monotonic() + timeout_seconds)
        channel.reply(body, time.perf_counter() - start)


def _filter_if_allowed(allow_unsafe: bool) -> SeccompFilter | None:
    try:
        return SeccompFilter(writable_fds=(1, 2, _RESULT_FD))
    except SeccompUnavailableError:
        if allow_unsafe:
            return None
        raise


def _check_surroundings() -> None:
    """Raise OSError where children could not be forked cleanly, or their end not be waited for."""
    os.close(os.pidfd_open(os.getpid()))
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise OSError(0, "an imported module started threads")


def _hide_ourselves() -> None:
    """Make the program's world look like a fresh interpreter: no path to import from, none of our modules in sight."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.argv = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == "reft_pl"]:
        del sys.modules[name]


def run_program(run: ProgramRunner, source: bytes, deadline: float) -> bytes:
    """Body of the program's result, tried again if its process is killed by somebody else before its deadline.

    No program can send itself SIGKILL, and its CPU limit lies beyond the deadline: it was an operator, or the kernel short
    of memory.
    """
    for _ in range(_ATTEMPTS - 1):
        body = supervise(run, source, deadline)
        if body != _KILLED_FROM_OUTSIDE:
            return body
    return supervise(run, source, deadline)


def supervise(run: ProgramRunner, source: bytes, deadline: float) -> bytes:
    """Fork a child that runs the program, wait for it until the deadline, and return the body of its frame."""
    nonce = os.urandom(_NONCE_BYTES)
    read_end, write_end = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(read_end)
        os.close(write_end)
        return frames.encode_failure("worker_died", f"fork: {error.strerror}")
    if pid == 0:
        try:
            os.setpgid(0, 0)
            confinement.die_with_parent(parent)
            run(source, nonce, write_end, read_end)
        finally:
            os._exit(70)
    os.close(write_end)
    pidfd = os.pidfd_open(pid)
    try:
        ended = _wait(pidfd, deadline)
        # The group dies before its leader is reaped, while its number cannot yet belong to anybody else.
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        _, wait_status = os.waitpid(pid, 0)
        if not ended:
            return frames.encode_failure("timeout")
        os.set_blocking(read_end, False)
        try:
            data = os.read(read_end, _FRAME_LIMIT + 1)
        except BlockingIOError:
            data = b""
        return _judge(data, nonce, wait_status)
    finally:
        os.close(pidfd)
        os.close(read_end)


def _wait(pidfd: int, deadline: float) -> bool:
    """Whether the process ended before the deadline."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poller.poll(math.ceil(left * 1000)):
            return True
    return False


def _judge(data: bytes, nonce: bytes, wait_status: int) -> bytes:
    """Body for the trainer, from all that the child left in the pipe and the way it ended."""
    if len(data) > _FRAME_LIMIT:
        return frames.encode_failure("output_too_large")
    if data:
        body = data[4 + _NONCE_BYTES :]
        if data != frames.pack(nonce + body):
            return frames.encode_failure("bad_frame")
        try:
            frames.decode_body(body)
        except frames.FrameError:
            return frames.encode_failure("bad_frame")
        return body
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        status = "timeout" if number == signal.SIGXCPU else "killed"
        return frames.encode_failure(status, f"signal {number}")
    code = os.WEXITSTATUS(wait_status)
    return frames.encode_failure("died", f"exit code {code}") if code else frames.encode_failure("no_result")


class ProgramRunner:
    """What a child does: confine itself, run one program, write one frame, end. Never returns.

    Args:
        scope: Names that programs find defined.
        memory_mb: What it may allocate beyond what is mapped now, in MiB.
        cpu_seconds: Limit of its CPU time.
        seccomp: The filter; None only where an unsafe sandbox was asked for.
    """

    def __init__(self, scope: dict[str, types.ModuleType], memory_mb: int, cpu_seconds: int, seccomp: SeccompFilter | None):
        self._scope = scope
        self._memory_bytes = confinement.address_space() + (memory_mb << 20)
        self._headroom_kb = memory_mb << 10
        self._cpu_seconds = cpu_seconds
        self._seccomp = seccomp
        self._number_types, self._expression_type = values.loaded_number_types()
        self._foreign_fds = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - {0, 1, 2}

    def __call__(self, source: bytes, nonce: bytes, result_fd: int, other_fd: int) -> None:
        """Run the program, write the result to ``result_fd``, and end the process."""
        write, leave, pack = os.write, os._exit, frames.pack  # before the program can lay hands on them
        os.dup2(result_fd, _RESULT_FD)
        for fd in (self._foreign_fds | {result_fd, other_fd}) - {_RESULT_FD}:
            with contextlib.suppress(OSError):
                os.close(fd)
        random.seed(_SEED)  # the module seeds itself anew after a fork
        confinement.limit_resources(self._memory_bytes, self._cpu_seconds)
        if self._seccomp is not None:
            self._seccomp.install()
        write(_RESULT_FD, pack(nonce + self._outcome(source)))
        leave(0)  # no atexit handlers, no finalizers, no flushing of what the program printed

    def _outcome(self, source: bytes) -> bytes:
        memory_error, base_exception = MemoryError, BaseException
        encode_failure, encode_value, type_name = frames.encode_failure, values.encode_value, values.type_name
        out_of_memory = encode_failure("memory")  # made while there still is some
        code = self._compile(source)
        if isinstance(code, bytes):
            return code
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
            # The parser says so, too, of nesting beyond its stack: tell the two apart by what it really used.
            used_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident_kb
            if used_kb > self._headroom_kb // 4:
                return frames.encode_failure("memory", "while compiling")
            return frames.encode_failure("syntax_error", "nested too deeply")
        except BaseException as error:
            return frames.encode_failure("syntax_error", type(error).__name__)

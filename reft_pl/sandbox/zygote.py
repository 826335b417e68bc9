"""The process that forks one child per program: clean, single-threaded, started by exec, never a fork of the trainer.

It imports what programs may use, gives up the file system, and then serves: receive two descriptors, fork, wait for the child's
end or its deadline, and report how it ended. The child (``program.py``) confines itself, reads the program from one descriptor
and writes its result to the other. Neither enters this process, so no later child can find them in memory that it inherits.
Plain programs, which by their syntax cannot look for anything, share a child: a fork costs ten times what they do.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

from reft_pl.sandbox import confinement, frames
from reft_pl.sandbox.channel import Channel
from reft_pl.sandbox.preload import STANDARD_MODULES, import_package, preloading
from reft_pl.sandbox.program import ProgramRunner

_SEED = 0  # every program draws the same random numbers


def main(timeout_seconds: float, memory_mb: int, packages: tuple[str, ...], allow_unsafe: bool, only_plain: bool) -> None:
    """Serve programs until the trainer closes the socket.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What a program may allocate beyond what the zygote holds, in MiB.
        packages: Third-party packages to preload; programs find them in scope by name.
        allow_unsafe: Serve even if the kernel lacks seccomp.
        only_plain: Fork only the child that plain programs share, which any kernel that has fork can do.
    """
    channel = Channel()
    try:
        scope: dict[str, types.ModuleType] = {"math": math}
        with preloading():
            for name in STANDARD_MODULES:
                importlib.import_module(name)
            scope |= {name: import_package(name) for name in packages}
        sys.modules["random"].seed(_SEED)
        if "numpy" in scope:
            scope["numpy"].random.seed(_SEED)
        runner = ProgramRunner(scope, memory_mb, math.ceil(timeout_seconds) + 1, allow_unsafe)
        if sys.platform == "linux":
            confinement.forbid_new_privileges()
            confinement.forbid_tracing()
            confinement.drop_capabilities()
            if len(list(Path("/proc/self/task").iterdir())) != 1:
                raise OSError(0, "an imported module started threads")  # noqa: TRY301 (the reason goes to the trainer)
            confinement.restrict_file_system()
        _hide_ourselves()
        if not only_plain:
            _check_child(runner)
    except Exception as error:
        channel.send(frames.greeting(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"))
        return
    gc.collect()
    gc.freeze()  # these objects stay shared with every child
    channel.send(frames.greeting())
    shared = frames.NOT_STARTED
    while (request := channel.receive()) is not None:
        if request:
            source_fd, result_fd = request
            channel.send(frames.ENDED.pack(*supervise(runner, source_fd, result_fd, timeout_seconds)))
            continue
        if shared != frames.NOT_STARTED:
            _end(shared)
        shared, requests = fork_shared(runner)
        channel.send(b"s", *requests)
        for descriptor in requests:
            os.close(descriptor)


def _check_child(runner: ProgramRunner) -> None:
    """Raise OSError if a child cannot confine itself and run a program (an empty one)."""
    if (wait_status := supervise(runner, os.dup(0), os.dup(0), 60.0)[1]) != 0:
        raise OSError(0, f"a confined process does not run here (wait status {wait_status})")


def _hide_ourselves() -> None:
    """Make the program's world look like a fresh interpreter: no path to import from, none of our modules in sight."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.argv = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == "reft_pl"]:
        del sys.modules[name]


def supervise(runner: ProgramRunner, source_fd: int, result_fd: int, timeout_seconds: float) -> tuple[bool, int, float]:
    """Fork a child that runs the program and wait for its end.

    Returns whether it was killed at its deadline, its wait status, and its wall time in seconds. Closes the descriptors.
    """
    start = time.monotonic()
    pid = _fork(lambda: runner.run_one(source_fd, result_fd))
    os.close(source_fd)
    os.close(result_fd)
    if pid == frames.NOT_STARTED:
        return False, frames.NOT_STARTED, 0.0
    pidfd = os.pidfd_open(pid)
    try:
        ended = _wait(pidfd, start + timeout_seconds)
    finally:
        os.close(pidfd)
    return not ended, _end(pid), time.monotonic() - start


def fork_shared(runner: ProgramRunner) -> tuple[int, list[int]]:
    """Fork the child that plain programs share. Returns its process id and the socket to it, or ``NOT_STARTED`` and nothing."""
    ours, theirs = socket.socketpair()
    with theirs:
        pid = _fork(lambda: runner.run_plain(theirs.fileno()))
    return pid, [] if pid == frames.NOT_STARTED else [ours.detach()]


def _fork(action: Callable[[], None]) -> int:
    """Fork a child that does something and ends. Returns its process id, or ``NOT_STARTED``."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        return frames.NOT_STARTED
    if pid == 0:
        try:
            os.setpgid(0, 0)
            confinement.die_with_parent(parent)
            action()
        finally:
            os._exit(70)
    return pid


def _end(pid: int) -> int:
    """Kill a child with all of its process group, and return its wait status."""
    # The group dies before its leader is reaped: until then its number cannot belong to anybody else.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _wait(pidfd: int, deadline: float) -> bool:
    """Whether the process ends before the deadline."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poller.poll(math.ceil(left * 1000)):
            return True
    return False

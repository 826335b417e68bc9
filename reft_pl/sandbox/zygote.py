"""The zygote: a clean, single-threaded process that forks one child per program. Started by exec, never a fork of the trainer.

It imports what programs may use, gives up the file system, and then serves: receive two descriptors, fork, wait until the child
ends or its deadline passes, and report how it ended. The child (``program.py``) confines itself, reads the program from one
descriptor and writes its result to the other. Neither enters this process, so no later child inherits them in its memory.
Plain programs, which by their syntax cannot inspect the process, share a child: a fork costs ten times as much as they do.
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
        timeout_seconds: Wall time limit of one program in seconds, compilation included.
        memory_mb: Memory a program may allocate on top of the zygote's, in MiB.
        packages: Third-party packages to preload; they are in a program's scope by name.
        allow_unsafe: Serve even if the kernel lacks seccomp.
        only_plain: Fork only the shared child, which needs nothing from the kernel except fork.
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
    """Raise OSError if a child cannot confine itself and run an empty program."""
    if (wait_status := supervise(runner, os.dup(0), os.dup(0), 60.0)[1]) != 0:
        raise OSError(0, f"a confined process cannot run here (wait status {wait_status})")


def _hide_ourselves() -> None:
    """Make the process look like a fresh interpreter: no import path, none of our modules loaded."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.argv = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == "reft_pl"]:
        del sys.modules[name]


def supervise(runner: ProgramRunner, source_fd: int, result_fd: int, timeout_seconds: float) -> tuple[bool, int, float]:
    """Fork a child that runs the program, and wait until it ends or its deadline passes.

    Returns whether it passed its deadline, its wait status, and its wall time in seconds. Closes both descriptors.
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
    """Fork the shared child for plain programs. Returns its PID and its socket, or ``NOT_STARTED`` and no socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        pid = _fork(lambda: runner.run_plain(theirs.fileno()))
    return pid, [] if pid == frames.NOT_STARTED else [ours.detach()]


def _fork(action: Callable[[], None]) -> int:
    """Fork a child that runs ``action`` and exits. Returns its PID, or ``NOT_STARTED``."""
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
    """Kill a child and its process group, and return the child's wait status."""
    # Kill the group before reaping its leader: until then the PID cannot be reused.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _wait(pidfd: int, deadline: float) -> bool:
    """Wait for the process; return whether it ends before the deadline."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poller.poll(math.ceil(left * 1000)):
            return True
    return False

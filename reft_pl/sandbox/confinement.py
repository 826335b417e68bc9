"""Confinement beyond seccomp: Landlock, resource limits, no capabilities, no new privileges. Standard library only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 4, 38, 24
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same number on every architecture
_LANDLOCK_CREATE_RULESET_VERSION = 1
_FILE_ACCESS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # access rights per Landlock ABI; 16 since ABI 5
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def forbid_new_privileges() -> None:
    """Set no_new_privs: seccomp and Landlock require it, and setuid programs then gain nothing."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")


def drop_capabilities() -> None:
    """Drop all capabilities of this process and its future children; only root has any."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capabilities could not be dropped")


def restrict_file_system() -> None:
    """Restrict this process and its children with Landlock: no file access, no TCP, no abstract sockets.

    A kernel without Landlock is not an error, because seccomp blocks these system calls as well.
    """
    abi = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    file_system = (1 << _FILE_ACCESS_BITS.get(abi, 16)) - 1
    fields = [file_system, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0][: 1 if abi < 4 else 2 if abi < 6 else 3]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    if abi < 1 or (ruleset := _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)) < 0:
        return
    try:
        if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock refused to bind the process")
    finally:
        os.close(ruleset)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its single-threaded parent exits; exit now if it already has."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def address_space() -> int:
    """Return this process's mapped virtual memory in bytes; 0 on platforms without /proc."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def limit_resources(address_space_bytes: int, cpu_seconds: int) -> None:
    """Limit memory and CPU time of this process, and forbid new files, processes and core dumps.

    Args:
        address_space_bytes: Virtual memory limit in bytes, including what is already mapped.
        cpu_seconds: CPU time in seconds after which the kernel kills the process.
    """
    nothing = (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE)
    limits = {resource.RLIMIT_CPU: cpu_seconds} | dict.fromkeys(nothing, 0)
    if sys.platform == "linux":  # elsewhere RLIMIT_AS has another meaning
        limits[resource.RLIMIT_AS] = address_space_bytes
    for which, wanted in limits.items():
        hard = resource.getrlimit(which)[1]
        bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (bound, bound))


def forbid_tracing() -> None:
    """Deny ptrace and /proc/PID/mem of this process to other processes of the same user."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

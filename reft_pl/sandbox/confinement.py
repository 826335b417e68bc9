"""What binds the process of a program besides seccomp: Landlock, resource limits, no capabilities. Standard library only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 4, 38, 24
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same number on every architecture
_LANDLOCK_CREATE_RULESET_VERSION = 1
_FILE_ACCESS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # rights that each Landlock ABI knows; 16 since ABI 5
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def forbid_new_privileges() -> None:
    """Set no_new_privs, which seccomp and Landlock ask for and setuid programs obey."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")


def drop_capabilities() -> None:
    """Give up what root can do beyond its own files, for this process and all that it forks. Nothing to do for other users."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _libc.capset(header, bytes(24))


def deny_file_system() -> bool:
    """Landlock without a single rule: no path can be opened, made or removed from here on, no TCP, no abstract sockets.

    Returns whether the kernel has Landlock. Where it has not, seccomp still refuses the system calls.
    """
    abi = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    if abi < 1:
        return False
    file_system = (1 << _FILE_ACCESS_BITS.get(abi, 16)) - 1
    fields = [file_system, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0][: 1 if abi < 4 else 2 if abi < 6 else 3]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    bound = _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(bound)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its (single-threaded) parent ends, also if it just has."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def address_space() -> int:
    """Bytes of virtual memory that this process has mapped now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def limit_resources(address_space_bytes: int, cpu_seconds: int) -> None:
    """Set the limits of one program: memory, CPU time, and none at all of files, processes, file sizes and core dumps.

    Args:
        address_space_bytes: Virtual memory, what is mapped already included.
        cpu_seconds: CPU time after which the kernel kills, should nobody else have.
    """
    for which, limit in (
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        hard = resource.getrlimit(which)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (bound, bound))


def forbid_tracing() -> None:
    """Keep same-user processes from ptrace and /proc/PID/mem of this one."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

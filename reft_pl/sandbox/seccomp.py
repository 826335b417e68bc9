"""A seccomp allow-list filter, built and installed through ctypes.

Once the modules are imported, CPython needs about forty system calls to run a program and write its result. All others return
EPERM, which a program sees as an ordinary PermissionError. So do write(2) to descriptors that are not listed, and mmap(2) and
mprotect(2) calls that ask for executable memory. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "select": 23, "sched_yield": 24, "mremap": 25,
    "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63, "gettimeofday": 96, "getrusage": 98,
    "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131,
    "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "pselect6": 270, "getrandom": 318,
}  # fmt: skip
_AARCH64 = {
    "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215,
    "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216,
    "madvise": 233, "nanosleep": 101, "getpid": 172, "exit": 93, "uname": 160, "gettimeofday": 169, "getrusage": 165,
    "times": 153, "getuid": 174, "getgid": 176, "geteuid": 175, "getegid": 177, "getppid": 173, "sigaltstack": 132,
    "gettid": 178, "futex": 98, "sched_getaffinity": 123, "restart_syscall": 128, "clock_gettime": 113,
    "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94, "pselect6": 72, "getrandom": 278,
}  # fmt: skip

_ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64, 317), "aarch64": (0xC00000B7, _AARCH64, 277)}
"""Per architecture: AUDIT_ARCH constant, numbers of the allowed system calls, number of seccomp(2)."""

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_OR_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16  # struct seccomp_data, little endian
_ALLOW, _KILL_PROCESS, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # the last is ERRNO with EPERM
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_X32_BIT = 0x40000000
_PROT_EXEC = 4

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


class SeccompUnavailableError(OSError):
    """This kernel, architecture or container does not support seccomp filters."""


def filter_code(machine: str, writable_fds: tuple[int, ...]) -> bytes:
    """Assemble the BPF code of the allow-list.

    Args:
        machine: Architecture, as returned by ``platform.machine()``.
        writable_fds: The only file descriptors that write(2) may use.

    Raises:
        SeccompUnavailableError: there is no system call table for the architecture.
    """
    if machine not in _ARCHITECTURES:
        raise SeccompUnavailableError(f"no system call table for {machine}")
    arch, table, _ = _ARCHITECTURES[machine]
    checked = {"mmap": "memory", "mprotect": "memory", "write": "write"}
    code: list[tuple[int, str, str, int]] = [  # operation, jump target if true, if false ("" is the next instruction), constant
        (_LOAD_WORD, "", "", _OFFSET_ARCH),
        (_JUMP_EQUAL, "", "kill", arch),
        (_LOAD_WORD, "", "", _OFFSET_NUMBER),
        (_JUMP_GREATER_OR_EQUAL, "refuse", "", _X32_BIT),
        *((_JUMP_EQUAL, checked.get(name, "allow"), "", number) for name, number in table.items()),
    ]
    places = {"refuse": len(code)}
    code.append((_RETURN, "", "", _REFUSE))
    places["write"] = len(code)
    code.append((_LOAD_WORD, "", "", _OFFSET_ARGUMENTS))
    code += [(_JUMP_EQUAL, "allow", "", fd) for fd in writable_fds]
    code.append((_RETURN, "", "", _REFUSE))
    places["memory"] = len(code)
    code.append((_LOAD_WORD, "", "", _OFFSET_ARGUMENTS + 2 * 8))
    code.append((_JUMP_ANY_BIT, "", "allow", _PROT_EXEC))
    code.append((_RETURN, "", "", _REFUSE))
    for name, verdict in (("allow", _ALLOW), ("kill", _KILL_PROCESS)):
        places[name] = len(code)
        code.append((_RETURN, "", "", verdict))

    def distance(at: int, name: str) -> int:
        return places[name] - at - 1 if name else 0

    return b"".join(
        struct.pack("=HBBI", operation, distance(at, if_true), distance(at, if_false), constant)
        for at, (operation, if_true, if_false, constant) in enumerate(code)
    )


def seccomp_available() -> bool:
    """Whether this machine supports the filter."""
    try:
        SeccompFilter(writable_fds=(1,))
    except SeccompUnavailableError:
        return False
    return True


class SeccompFilter:
    """A filter that is prepared before the fork, so that the child installs it with one system call.

    Args:
        writable_fds: The only file descriptors that write(2) may use.

    Raises:
        SeccompUnavailableError: this machine does not support seccomp filters.
    """

    def __init__(self, writable_fds: tuple[int, ...]):
        if sys.platform != "linux":
            raise SeccompUnavailableError("this is not Linux")
        code = filter_code(platform.machine(), writable_fds)
        self._seccomp = _ARCHITECTURES[platform.machine()][2]
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _FilterProgram(len(code) // 8, ctypes.addressof(self._code))
        action = ctypes.c_uint32(_REFUSE & 0xFFFF0000)
        if _syscall(self._seccomp, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) != 0:
            raise SeccompUnavailableError(ctypes.get_errno(), "this kernel has no seccomp filters")

    def install(self) -> None:
        """Apply the filter to the calling thread for good. Requires no_new_privs or CAP_SYS_ADMIN.

        Raises:
            SeccompUnavailableError: the kernel refused.
        """
        if _syscall(self._seccomp, _SET_MODE_FILTER, 0, ctypes.byref(self._program)) != 0:
            raise SeccompUnavailableError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

"""The filter's BPF code, interpreted instruction by instruction on both architectures."""

import platform
import struct
import subprocess
import sys

import pytest

from reft_pl.sandbox.seccomp import SeccompUnavailableError, filter_code

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000


def verdict(code: bytes, arch: int, number: int, first_argument: int = 0, third_argument: int = 0) -> int:
    """Run classic BPF over a ``struct seccomp_data``."""
    data = struct.pack("=iIQ6Q", number, arch, 0, first_argument, 0, third_argument, 0, 0, 0)
    instructions = list(struct.iter_unpack("=HBBI", code))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, k = instructions[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif operation == 0x15:
            at += if_true if accumulator == k else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= k else if_false
        elif operation == 0x45:
            at += if_true if accumulator & k else if_false
        else:
            assert operation == 0x06
            return k


@pytest.mark.parametrize(
    ("machine", "allowed", "refused"),
    [
        (
            "x86_64",
            {0, 3, 9, 12, 202, 231},
            {2, 41, 56, 57, 59, 62, 101, 105, 157, 160, 165, 234, 257, 302, 310, 317, 425, 435},
        ),
        ("aarch64", {63, 57, 222, 214, 98, 94}, {56, 117, 129, 131, 146, 167, 198, 220, 221, 261, 270, 277, 425, 435}),
    ],
)
def test_allowed_and_refused_calls(machine, allowed, refused):
    code = filter_code(machine, (1, 2, 3))
    assert {verdict(code, ARCH[machine], number) for number in allowed} == {ALLOW}
    assert {verdict(code, ARCH[machine], number) for number in refused} == {EPERM}


@pytest.mark.parametrize(("machine", "write"), [("x86_64", 1), ("aarch64", 64)])
def test_write_reaches_only_the_named_descriptors(machine, write):
    code = filter_code(machine, (1, 2, 3))
    verdicts = {fd: verdict(code, ARCH[machine], write, fd) for fd in range(8)}
    assert verdicts == {fd: ALLOW if fd in (1, 2, 3) else EPERM for fd in range(8)}


@pytest.mark.parametrize(("machine", "mmap", "mprotect"), [("x86_64", 9, 10), ("aarch64", 222, 226)])
def test_executable_memory_is_refused(machine, mmap, mprotect):
    code = filter_code(machine, (3,))
    for call in (mmap, mprotect):
        verdicts = {prot: verdict(code, ARCH[machine], call, 0, prot) for prot in range(8)}
        assert verdicts == {prot: EPERM if prot & 4 else ALLOW for prot in range(8)}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
def test_refused_system_calls_stay_refused():
    """Files, processes, signals, tracing, sockets, limits, mounts, other processes' memory, seccomp, bpf, io_uring and more."""
    numbers = [2, 16, 22, 29, 32, 41, 49, 56, 59, 62, 72, 80, 87, 90, 101, 105, 109, 112, 117, 126, 133, 157, 160, 161, 165]
    numbers += [200, 234, 248, 250, 257, 272, 298, 302, 308, 310, 311, 317, 319, 321, 323, 424, 425, 434, 435, 437, 438, 444]
    script = (
        "import ctypes, mmap\nfrom reft_pl.sandbox import confinement\nfrom reft_pl.sandbox.seccomp import SeccompFilter\n"
        "call = ctypes.CDLL(None, use_errno=True).syscall\nlimits = SeccompFilter((1, 2))\n"
        "confinement.forbid_new_privileges()\nlimits.install()\n"
        f"print([n for n in {numbers} if call(n, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1])\n"
        "try: print(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))\n"
        "except PermissionError: print('no executable memory')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "no executable memory"]


def test_every_other_number_is_refused():
    code = filter_code("x86_64", (3,))
    assert sum(verdict(code, ARCH["x86_64"], number, 3) == ALLOW for number in range(1024)) < 45


def test_another_architectures_calls_kill_and_x32_is_refused():
    code = filter_code("x86_64", (1, 2, 3))
    assert verdict(code, 0x40000003, 1, 1) == KILL  # i386
    assert verdict(code, ARCH["x86_64"], 0x40000000 | 39) == EPERM


def test_jumps_stay_inside_the_code():
    code = filter_code("x86_64", (1, 2, 3))
    instructions = list(struct.iter_unpack("=HBBI", code))
    assert all(at + 1 + max(i[1], i[2]) < len(instructions) for at, i in enumerate(instructions) if i[0] in (0x15, 0x35, 0x45))


def test_an_unknown_architecture_is_reported():
    with pytest.raises(SeccompUnavailableError, match="riscv64"):
        filter_code("riscv64", (1,))

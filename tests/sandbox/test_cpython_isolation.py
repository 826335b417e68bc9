"""Programs of one sandbox learn nothing of each other and do not influence each other."""

import itertools
import struct
from pathlib import Path

import pytest

from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Status


def test_one_program_leaves_nothing_to_the_next(cpython):
    patch = (
        "import math, builtins\nmath.floor = lambda x: 42\nbuiltins.sum = lambda x: 42\nLEFT = 1\ndef solution():\n return 1"
    )
    look = "import math\ndef solution():\n return math.floor(3.5) + sum([1, 2]) + ('LEFT' in globals())"
    results = cpython.run([patch, look] * 8)
    assert [result.value for result in results] == [1.0, 6.0] * 8


def test_the_same_program_gives_the_same_answer_in_every_worker(cpython):
    program = (
        "import random\ndef solution():\n"
        " return random.random() + sum(i * len(w) for i, w in enumerate({'a', 'bb', 'ccc', 'dddd', 'eeeee'}))"
    )
    assert len({result.value for result in cpython.run([program] * 12)}) == 1


PREDECESSOR = "import os\ndef solution():\n marker_of_a_predecessor = 9182.7364\n return marker_of_a_predecessor"

PLAIN_PREDECESSOR = PREDECESSOR.removeprefix("import os\n")


SEEN = (
    "def seen(v):\n"
    " text = v if type(v) is str else v.decode('latin-1') if type(v) is bytes else ''\n"
    " return '_'.join(['marker', 'of', 'a', 'predecessor']) in text or (type(v) is float and abs(v * 10000 - 91827364) < 0.5)\n"
)


LOOKS = {
    "frames": (
        f"import sys\n{SEEN}def solution():\n f, n = sys._getframe(), 0\n while f:\n"
        "  n += sum(map(seen, [*f.f_globals.values(), *f.f_locals.values()]))\n  f = f.f_back\n return n"
    ),
    "objects": (
        f"import gc\n{SEEN}def solution():\n gc.unfreeze()\n"
        " return sum(seen(r) for o in gc.get_objects() for r in gc.get_referents(o) if type(r) in (str, bytes, float))"
    ),
}


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("first", ["", "import numpy\n"])
def test_a_program_finds_nothing_of_its_predecessor(how, first):
    sandbox = CPythonSandbox(timeout_seconds=10, workers=1)
    try:
        pairs = [[f"{first}{PREDECESSOR} #{i}", PLAIN_PREDECESSOR, f"{first}{LOOKS[how]} #{i}"] for i in range(3)]
        results = sandbox.run(list(itertools.chain(*pairs)))
    finally:
        sandbox.close()
    assert [(result.status, result.value) for result in results] == [
        (Status.OK, value) for value in (9182.7364, 9182.7364, 0.0)
    ] * 3


def test_the_zygotes_memory_holds_nothing_of_programs_or_results():
    """Scan all writable memory of the zygote, from which every program is forked."""
    sandbox = CPythonSandbox(timeout_seconds=5, workers=1)
    needles = [b"marker_of_a_predecessor", struct.pack("<d", 9182.7364)]
    try:
        sandbox.run([f"{program} #{i}" for i in range(5) for program in (PREDECESSOR, PLAIN_PREDECESSOR)])
        (pid,) = sandbox.worker_pids
        found = [needle for needle in needles if needle in memory_of(pid)]
        assert b"reft_pl.sandbox.zygote" in memory_of(pid)  # the scan works
    finally:
        sandbox.close()
    assert found == []


def memory_of(pid):
    """Read the private writable memory of another process."""
    parts = []
    with Path(f"/proc/{pid}/maps").open(encoding="ascii") as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            span, access, *_ = line.split()
            if access.startswith("rw"):
                start, end = (int(place, 16) for place in span.split("-"))
                memory.seek(start)
                parts.append(memory.read(end - start))
    return b"".join(parts)

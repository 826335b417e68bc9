"""The allocator's settings, in separate processes because they hold for a whole process."""

import json
import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from reft_pl.cli.allocator import keep_freed_memory
accepted = keep_freed_memory()
import numpy
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(2**23)  # 64 MB
before = faults()
for _ in range(5):
    numpy.ones(2**23)
print(accepted, faults() - before)
"""


def run(**environment: str) -> tuple[bool, int]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    accepted, faults = result.stdout.split()
    return accepted == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_reused_without_new_pages() -> None:
    accepted, faults = run()
    assert accepted
    untouched, many = run(MALLOC_TOP_PAD_="131072")
    assert not untouched, "a user's own settings stand"
    assert faults * 10 < many


BETWEEN_PHASES = """
import json
from pathlib import Path
import torch
from reft_pl.cli.allocator import keep_freed_memory
from reft_pl.cli.allocator import GivesFreedMemoryBack

def resident():
    return int(next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS")).split()[1]) / 1024

keep_freed_memory()
callback = GivesFreedMemoryBack()
found = []
for phase in ("rollout", "execute", "rollout", "score"):
    tensors = [torch.ones(2**18) for _ in range(256)]  # 256 MB
    standing = torch.ones(2**10)  # above them
    del tensors
    before = resident()
    callback.on_phase_start(None, None, phase, 1)
    found.append(before - resident())
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_returned_between_phases() -> None:
    result = subprocess.run([sys.executable, "-c", BETWEEN_PHASES], capture_output=True, text=True, check=True, timeout=300)
    rollout, execute, same, score = json.loads(result.stdout)
    assert rollout > 200
    assert score > 200
    assert execute < 20, "programs are executed while others are written"
    assert same < 20, "a rollout continues"

"""The allocator's settings, in processes of their own: they hold for a whole process."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from reft_pl.cli.allocator import keep_freed_memory
told = keep_freed_memory()
import numpy
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(2**23)  # 64 MB
before = faults()
for _ in range(5):
    numpy.ones(2**23)
print(told, faults() - before)
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
    told, faults = result.stdout.split()
    return told == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    told, faults = run()
    assert told
    untouched, many = run(MALLOC_TOP_PAD_="131072")
    assert not untouched, "a user's own settings stand"
    assert faults * 10 < many

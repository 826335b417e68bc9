"""Memory that a training step gave back is kept for the next one, instead of being asked of the system again page by page."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP = 2**31 - 1
_TOP_PAD = 2**26


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed; whether it was told.

    By default each large tensor is a mapping of its own, whose pages the system hands out and zeroes anew each time. Nothing
    is done where the allocator is another one (tcmalloc or jemalloc preloaded, no glibc) or the user has settings of his own.
    """
    own = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in own):
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _TOP_PAD))
    told = [bool(libc.mallopt(name, value)) for name, value in settings]
    return all(told)

"""Memory that a training step gave back is kept for the next one, instead of being asked of the system again page by page."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

from lightning.pytorch import LightningModule, Trainer

from reft_pl.modules.hooks import Phase, RolloutCallback

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP = 2**31 - 1
_TOP_PAD = 2**26

_PRODUCTS = 64
"""Shapes of products whose code oneDNN keeps, of 1,024 by default. A micro-batch has some twenty, and what is kept of them, all
over the memory that tensors of other sizes come and go in, leaves ever more gaps there."""


@cache  # asked where each phase begins, and read from the interpreter's file
def is_glibc_as_it_comes() -> bool:
    """Whether the allocator is ours to tell: no other one (tcmalloc or jemalloc preloaded), no settings of the user's own."""
    own = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")
    return platform.libc_ver()[0] == "glibc" and not any(os.environ.get(name) for name in own)


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed, if it is ours to tell, and oneDNN to keep little; whether that was done.

    By default each large tensor is a mapping of its own, whose pages the system hands out and zeroes anew each time.
    """
    if not is_glibc_as_it_comes():
        return False
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRODUCTS))  # read at the first product
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _TOP_PAD))
    told = [bool(libc.mallopt(name, value)) for name, value in settings]
    return all(told)


def give_freed_memory_back() -> None:
    """Give the pages in which nothing stands back to the system, if the allocator is the one that was told to keep them."""
    if is_glibc_as_it_comes():
        ctypes.CDLL(None).malloc_trim(0)


class GivesFreedMemoryBack(RolloutCallback):
    """Where another phase begins than the one before, gives free pages back to the system."""

    def __init__(self) -> None:
        self._phase: Phase | None = None

    def on_phase_start(self, trainer: Trainer, module: LightningModule, phase: Phase, total: int) -> None:
        """Programs are executed while others are written: ``execute`` is part of the rollout."""
        if phase not in (self._phase, "execute"):
            self._phase = phase
            give_freed_memory_back()

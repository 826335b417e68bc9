"""Keep the memory that a training step frees for the next step, instead of returning it to the system."""

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
"""Matrix-product shapes that oneDNN caches (default: 1,024). A micro-batch uses about twenty. Cached code scattered among
short-lived tensors fragments the heap."""


@cache  # called at each phase, and libc_ver reads the interpreter's file
def is_glibc_as_it_comes() -> bool:
    """Return whether the allocator is unmodified glibc: no tcmalloc or jemalloc preloaded, no options set by the user."""
    own = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")
    return platform.libc_ver()[0] == "glibc" and not any(os.environ.get(name) for name in own)


def keep_freed_memory() -> bool:
    """Configure glibc to keep freed memory and oneDNN to cache little; return whether all settings were applied.

    By default each large tensor is a separate mapping; the system zeroes its pages on every allocation. Does nothing if the
    allocator is not unmodified glibc.
    """
    if not is_glibc_as_it_comes():
        return False
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRODUCTS))  # read at the first product
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _TOP_PAD))
    accepted = [bool(libc.mallopt(name, value)) for name, value in settings]
    return all(accepted)


def give_freed_memory_back() -> None:
    """Return unused pages to the system, if the allocator is unmodified glibc."""
    if is_glibc_as_it_comes():
        ctypes.CDLL(None).malloc_trim(0)


class GivesFreedMemoryBack(RolloutCallback):
    """Return unused pages to the system at each change of phase."""

    def __init__(self) -> None:
        self._phase: Phase | None = None

    def on_phase_start(self, trainer: Trainer, module: LightningModule, phase: Phase, total: int) -> None:
        """Trim the heap when the phase changes; ``execute`` overlaps with the rollout and counts as part of it."""
        if phase not in (self._phase, "execute"):
            self._phase = phase
            give_freed_memory_back()

"""Counter-based random numbers: a sample depends on its identity, not on its batch, rank or time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_UInts: TypeAlias = NDArray[np.uint64]

# Constants of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)


def counter_seed(run_seed: int, stage: str, epoch: int, item_id: str, sample_index: int) -> int:
    """Hash the identity of a sample to a 64-bit seed, the same in every process and on every machine."""
    name = json.dumps([run_seed, stage, epoch, item_id, sample_index])
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def uniforms_at(seeds: Sequence[int], token_indices: Sequence[int]) -> NDArray[np.float64]:
    """Return the uniform number for one token of each of B samples, [B] float64 in [0, 1).

    It is a pure function of (seed, token index): the upper 53 bits of output ``token_index`` of SplitMix64 with seed ``seed``.
    """
    state: _UInts = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
    counter: _UInts = np.array(token_indices, dtype=np.uint64) + np.uint64(1)
    mixed: _UInts = state + counter * _GAMMA
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> shift)) * factor
    mixed ^= mixed >> _LAST_SHIFT
    numbers: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers

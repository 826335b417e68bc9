"""Random choices that are the same on every machine, Python version and hash seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws that depend on ``key`` alone.

    Only ``random.Random.random`` is used: its sequence is what Python promises to keep from version to version.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.blake2b("/".join(str(part) for part in key).encode(), digest_size=8).digest()
        self._uniform = random.Random(int.from_bytes(digest, "big")).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._uniform() < probability

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self._uniform() * (high - low + 1))

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.between(0, len(options) - 1)]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` different options in random order."""
        rest = list(options)
        return [rest.pop(self.between(0, len(rest) - 1)) for _ in range(count)]

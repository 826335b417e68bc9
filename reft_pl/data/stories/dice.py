"""Random choices that are reproducible across machines, Python versions and hash seeds."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Random draws that depend only on ``key``.

    They use only ``random.Random.random``, because Python guarantees its sequence across versions.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.blake2b("/".join(str(part) for part in key).encode(), digest_size=8).digest()
        self._uniform = random.Random(int.from_bytes(digest, "big")).random

    def chance(self, probability: float) -> bool:
        """Return true with the given probability."""
        return self._uniform() < probability

    def between(self, low: int, high: int) -> int:
        """Draw an integer from ``low`` to ``high``, inclusive."""
        return low + int(self._uniform() * (high - low + 1))

    def choice(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[self.between(0, len(options) - 1)]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Draw ``count`` options without replacement, in random order."""
        rest = list(options)
        return [rest.pop(self.between(0, len(rest) - 1)) for _ in range(count)]

"""Guesses of what a row goes on with, from what all rows have been seen to go on with.

Solutions to like questions are much alike, and a step over a few more tokens takes hardly longer. A guessed token is read
together with the newest one; the next token is drawn with its own random number as ever, and only if it is the guessed one the
guess has saved a step. So guesses change no sample, but for rounding: they are speculative decoding with an n-gram model that
the rollout itself trains (arXiv 2211.17192 has the idea with a second network, and 2304.04487 with text to copy from).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

ORDER = 3
"""Tokens, at most, that a guess looks back on."""

CONFIDENCE = 0.5
"""A guess is made while it is right as often as this, all guesses before it included."""

MOST_COUNTS = 2**19
"""Tokens that are remembered after a context, some 100 MB of them with their contexts; later ones are not."""

_TOKEN_BITS = 32


class NgramDrafts:
    """An n-gram model of what is written, which learns as it is written.

    A context is a number, as is a context with what came after it: so many small objects would keep the garbage collector busy.
    """

    def __init__(self) -> None:
        self._followers: dict[int, int] = {}  # of each context, how many tokens came after it
        self._most_frequent: dict[int, int] = {}
        self._counts: dict[int, int] = {}  # of each context with a token after it

    def learn(self, sequence: Sequence[int], start: int = 0) -> None:
        """Remember what the tokens from ``start`` on came after."""
        for end in range(max(start, 1), len(sequence)):
            for context in _contexts(sequence[max(0, end - ORDER) : end]):
                self._add(context, sequence[end])

    def _add(self, context: int, token: int) -> None:
        both, followers = _longer(context, token), self._followers.get(context, 0)
        count = self._counts.get(both, 0) + 1
        remembered = count > 1 or len(self._counts) < MOST_COUNTS
        if remembered or followers:  # what is not remembered makes the others less probable all the same
            self._followers[context] = followers + 1
        if remembered:
            self._counts[both] = count
            if not followers or count > self._count(context, self._most_frequent[context]):
                self._most_frequent[context] = token

    def _count(self, context: int, token: int) -> int:
        return self._counts[_longer(context, token)]

    def guess(self, sequence: Sequence[int], most: int, eos_ids: Collection[int]) -> list[int]:
        """Up to ``most`` tokens that ``sequence`` probably goes on with, of those after which it goes on."""
        recent, guessed, confidence = list(sequence[-ORDER:]), list[int](), 1.0
        while len(guessed) < most:
            context = next((c for c in reversed(_contexts(recent)) if c in self._followers), None)
            if context is None:
                break
            token = self._most_frequent[context]
            confidence *= self._count(context, token) / (self._followers[context] + 1)  # as if another had come once more
            if confidence < CONFIDENCE or token in eos_ids:
                break
            guessed.append(token)
            recent = [*recent, token][-ORDER:]
        return guessed


def _contexts(recent: Sequence[int]) -> list[int]:
    """The last token, the last two, and so on, each as one number."""
    contexts, context = [], 0
    for distance, token in enumerate(reversed(recent)):
        context += (token + 1) << (_TOKEN_BITS * distance)
        contexts.append(context)
    return contexts


def _longer(context: int, token: int) -> int:
    """A context and what came after it."""
    return (context << _TOKEN_BITS) + token

"""Draft tokens for speculative decoding, from an n-gram model that each rollout trains on itself.

Solutions to similar questions are alike, and a decoding step with a few more tokens takes hardly longer. Drafted tokens enter
the forward pass together with the newest token. Every token is still sampled with its usual random number, and a draft saves a
step only if it matches. Drafts therefore change samples only by rounding.

Source: speculative decoding with a draft network, arXiv 2211.17192; with text to copy from, arXiv 2304.04487.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

ORDER = 3
"""Maximum context length in tokens."""

CONFIDENCE = 0.5
"""Drafting continues while the estimated probability that the whole draft matches is at least this."""

MOST_COUNTS = 2**19
"""Maximum number of (context, next token) pairs, about 100 MB with their contexts; later pairs are not stored."""

_TOKEN_BITS = 32


class NgramDrafts:
    """An n-gram model of the rollout's tokens, trained while they are sampled.

    Contexts, and contexts with their next token, are encoded as integers: millions of small objects would burden the garbage
    collector.
    """

    def __init__(self) -> None:
        self._followers: dict[int, int] = {}  # context -> number of tokens seen after it
        self._most_frequent: dict[int, int] = {}
        self._counts: dict[int, int] = {}  # (context, next token) -> count

    def learn(self, sequence: Sequence[int], start: int = 0) -> None:
        """Count the tokens from ``start`` on after their contexts."""
        for end in range(max(start, 1), len(sequence)):
            for context in _contexts(sequence[max(0, end - ORDER) : end]):
                self._add(context, sequence[end])

    def _add(self, context: int, token: int) -> None:
        both, followers = _longer(context, token), self._followers.get(context, 0)
        count = self._counts.get(both, 0) + 1
        remembered = count > 1 or len(self._counts) < MOST_COUNTS
        if remembered or followers:  # a pair that is not stored still lowers the probability of the others
            self._followers[context] = followers + 1
        if remembered:
            self._counts[both] = count
            if not followers or count > self._count(context, self._most_frequent[context]):
                self._most_frequent[context] = token

    def _count(self, context: int, token: int) -> int:
        return self._counts[_longer(context, token)]

    def guess(self, sequence: Sequence[int], most: int, eos_ids: Collection[int]) -> list[int]:
        """Draft up to ``most`` likely next tokens of ``sequence``, stopping before a token in ``eos_ids``."""
        recent, guessed, confidence = list(sequence[-ORDER:]), list[int](), 1.0
        while len(guessed) < most:
            context = next((c for c in reversed(_contexts(recent)) if c in self._followers), None)
            if context is None:
                break
            token = self._most_frequent[context]
            confidence *= self._count(context, token) / (self._followers[context] + 1)  # smoothed by 1
            if confidence < CONFIDENCE or token in eos_ids:
                break
            guessed.append(token)
            recent = [*recent, token][-ORDER:]
        return guessed


def _contexts(recent: Sequence[int]) -> list[int]:
    """Encode the last token, the last two tokens, and so on, each as one integer."""
    contexts, context = [], 0
    for distance, token in enumerate(reversed(recent)):
        context += (token + 1) << (_TOKEN_BITS * distance)
        contexts.append(context)
    return contexts


def _longer(context: int, token: int) -> int:
    """Encode a context and its next token as one integer."""
    return (context << _TOKEN_BITS) + token

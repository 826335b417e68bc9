"""The record of a tokenised sequence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A token sequence that begins with an input: ``prompt_length``, at least 1, says how many of the ``ids`` belong to it.

    A training sequence is input, target and EOS, with the loss on everything after the input, given lines included. A sampling
    prompt is the input and the stable tokens of the given lines.
    """

    ids: tuple[int, ...]
    prompt_length: int

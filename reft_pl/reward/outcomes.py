"""Asking a reward function, which a user may have written: nothing but finite numbers goes into training."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

import torch

from reft_pl.errors import UserError
from reft_pl.reward.base import RewardFunction
from reft_pl.types import Sample

LARGEST = torch.finfo(torch.float32).max
"""Outcomes are kept in float32, where a larger one would be infinite."""


def outcomes(reward: RewardFunction, samples: Sequence[Sample]) -> list[float]:
    """The outcome that the reward function gives each sample, in order.

    A single one that is not finite would make every advantage of its rollout NaN, since they are whitened together.

    Raises:
        UserError: it does not give every sample one, or one is not a finite number in float32.
    """
    if not samples:  # a rank may have none, of which no reward function need know
        return []
    name = f"the reward function {type(reward).__name__}"
    # `score` says that it returns a list, and code that nobody type-checks returns what it likes.
    returned: Any = reward.score(samples)
    try:
        iterator = iter(returned)
    except TypeError:
        raise UserError(f"{name} returned {reprlib.repr(returned)}: return a list with one number a sample") from None
    scores = list(iterator)
    if len(scores) != len(samples):
        raise UserError(f"{name} gave {len(scores)} scores for {len(samples)} samples: give each sample one")
    found = [_number(score) for score in scores]
    for sample, score, number in zip(samples, scores, found, strict=True):
        if not abs(number) <= LARGEST:  # which is false for NaN too
            raise UserError(
                f"{name} gave {reprlib.repr(score)} for a solution of the problem {sample.problem.id!r}: give each sample a "
                f"finite number"
            )
    return found


def _number(score: object) -> float:
    """The score as a float, NaN if it is no number; a text is none, whatever it says."""
    try:
        return math.nan if isinstance(score, (str, bytes)) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of more than one element
        return math.nan

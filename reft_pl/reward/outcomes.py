"""Call a reward function and validate its rewards, since users may supply their own."""

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
"""Outcomes are stored in float32; a larger one would become infinite."""


def outcomes(reward: RewardFunction, samples: Sequence[Sample]) -> list[float]:
    """Return the outcome of each sample, in order.

    Advantages are whitened together, so a single non-finite outcome would make every advantage of its rollout NaN.

    Raises:
        UserError: the number of rewards differs from the number of samples, or a reward is not a finite float32.
    """
    if not samples:  # a rank may have no samples; reward functions need not handle that
        return []
    name = f"the reward function {type(reward).__name__}"
    # `score` is annotated to return a list, but user code may not be type-checked.
    returned: Any = reward.score(samples)
    try:
        iterator = iter(returned)
    except TypeError:
        raise UserError(f"{name} returned {reprlib.repr(returned)}: return a list with one number per sample") from None
    scores = list(iterator)
    if len(scores) != len(samples):
        raise UserError(f"{name} returned {len(scores)} rewards for {len(samples)} samples: return one per sample")
    found = [_number(score) for score in scores]
    for sample, score, number in zip(samples, scores, found, strict=True):
        if not abs(number) <= LARGEST:  # also rejects NaN
            raise UserError(
                f"{name} returned {reprlib.repr(score)} for a sample of the problem {sample.problem.id!r}: return a finite "
                f"number for each sample"
            )
    return found


def _number(score: object) -> float:
    """Convert a reward to a float; NaN if it is not a number. A string never counts as a number."""
    try:
        return math.nan if isinstance(score, (str, bytes)) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of more than one element
        return math.nan

"""Validate what a reward returned, since users may supply their own."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

import torch

from reft_pl.errors import UserError
from reft_pl.types import Sample

LARGEST = torch.finfo(torch.float32).max
"""Outcomes are stored in float32; a larger one would become infinite."""


def outcomes(name: str, returned: Any, samples: Sequence[Sample]) -> list[float | None]:
    """Return the reward of each sample, in order; None if the reward leaves it out.

    Advantages are whitened together, so a single non-finite outcome would make every advantage of its rollout NaN.

    Args:
        name: Name of the reward in errors.
        returned: What its function returned.
        samples: The samples that it was called with.

    Raises:
        UserError: the number of rewards differs from the number of samples, or a reward is neither None nor a finite float32.
    """
    name = f"the reward function {name}"
    try:
        iterator = iter(returned)
    except TypeError:
        raise UserError(f"{name} returned {reprlib.repr(returned)}: return a list with one number per sample") from None
    scores = list(iterator)
    if len(scores) != len(samples):
        raise UserError(f"{name} returned {len(scores)} rewards for {len(samples)} samples: return one per sample")
    found = [None if score is None else _number(score) for score in scores]
    for sample, score, number in zip(samples, scores, found, strict=True):
        if number is not None and not abs(number) <= LARGEST:  # also rejects NaN
            raise UserError(
                f"{name} returned {reprlib.repr(score)} for a sample of the problem {sample.problem.id!r}: return a finite "
                f"number for each sample, or None to leave it out"
            )
    return found


def _number(score: object) -> float:
    """Convert a reward to a float; NaN if it is not a number. A string never counts as a number."""
    try:
        return math.nan if isinstance(score, (str, bytes)) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of more than one element
        return math.nan

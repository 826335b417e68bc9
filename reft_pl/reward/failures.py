"""Explain an exception that a user's reward raised: where, and for which sample."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from reft_pl.errors import UserError, described
from reft_pl.reward.background import finished, in_thread
from reft_pl.types import Sample

SECONDS = 5.0
"""Time for finding the sample at which a function of a whole batch fails."""
_START = 60  # characters of a completion


def failure(
    name: str, error: BaseException, samples: Sequence[Sample], again: Callable[[Sequence[Sample]], Any] | None
) -> UserError:
    """Return the error that reports an exception of a reward; raise it from the exception.

    Args:
        name: Name of the reward.
        error: What it raised; a ``UserError`` is returned unchanged.
        samples: The samples that it was called with.
        again: Calls the reward for some of them, to find the one at fault; None if it takes too long.
    """
    if isinstance(error, UserError):
        return error
    guilty = samples[0] if len(samples) == 1 else None
    if again is not None and guilty is None:
        guilty, error = _search(samples, again, error)
    sample = samples[0] if guilty is None else guilty
    batch = "" if guilty is not None else f"in a batch of {len(samples)} samples, the first "
    return UserError(
        f"the reward function {name} raised {described(error)}{_place(error)} {batch}for the problem {sample.problem.id!r} and "
        f"the completion {_start(sample.text)}: correct the function, or let it return None for samples that it cannot judge"
    )


def _search(
    samples: Sequence[Sample], again: Callable[[Sequence[Sample]], Any], error: BaseException
) -> tuple[Sample | None, BaseException]:
    """Call the reward with single samples; return the first that fails and its exception, or None and ``error``."""
    deadline = monotonic() + SECONDS
    for sample in samples:
        left = deadline - monotonic()
        call = in_thread(lambda sample=sample: again([sample]), Lock(), max(0.0, left))  # type: ignore[misc]
        if not finished(call, deadline):
            break
        raised = call.exception()
        if raised is not None:
            return sample, raised
    return None, error


def _place(error: BaseException) -> str:
    """Name the last line of a user's file in the traceback, else the last line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = Path(__file__).parents[1]
    theirs = [f for f in frames if own not in Path(f.filename).parents and "site-packages" not in f.filename]
    last = (theirs or frames)[-1:]
    return f" in line {last[0].lineno} of {Path(last[0].filename).name}" if last else ""


def _start(text: str) -> str:
    return repr(text) if len(text) <= _START else f"{text[:_START]!r}..."

"""Read curves from a run's TensorBoard files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MAX_POINTS = 1000
"""Limit per curve; longer ones are thinned evenly, since a chart has fewer pixels."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Values by number of training batches, in increasing order."""

    batches: list[int]
    values: list[float]


def event_files(folder: Path) -> list[Path]:
    """Return the TensorBoard files of a run, one per start."""
    return sorted(folder.glob("*tfevents*"))


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return every scalar of a run by tag; empty without TensorBoard files."""
    if not event_files(folder):
        return {}
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns about points that each resume discarded
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 1, "images": 1})
    events.Reload()
    return {
        tag: thinned(joined([(event.step, event.value) for event in events.Scalars(tag)])) for tag in events.Tags()["scalars"]
    }


def joined(points: list[tuple[int, float]]) -> Curve:
    """Join what a run logged in all its starts into one curve.

    A killed run resumes from its last checkpoint and logs the batches after it again: a point replaces all earlier points from
    its batch on. A restarted run replaces the old one in the same way.

    Args:
        points: Batches and values, in the order written.
    """
    batches: list[int] = []
    values: list[float] = []
    for batch, value in points:
        while batches and batches[-1] >= batch:
            batches.pop()
            values.pop()
        batches.append(batch)
        values.append(value)
    return Curve(batches, values)


def thinned(curve: Curve, limit: int = MAX_POINTS) -> Curve:
    """Return at most ``limit`` evenly spaced points, including the first and the last."""
    n = len(curve.batches)
    if n <= limit:
        return curve
    kept = [i * (n - 1) // (limit - 1) for i in range(limit)]
    return Curve([curve.batches[i] for i in kept], [curve.values[i] for i in kept])

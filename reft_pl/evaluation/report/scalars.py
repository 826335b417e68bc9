"""Curves from a run's TensorBoard files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MAX_POINTS = 1000
"""Of a curve; a longer one is thinned evenly, for a chart has fewer pixels anyway."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Values by number of training batches, increasing."""

    batches: list[int]
    values: list[float]


def event_files(folder: Path) -> list[Path]:
    """The TensorBoard files of a run: one for each time that it was started."""
    return sorted(folder.glob("*tfevents*"))


def read_curves(folder: Path) -> dict[str, Curve]:
    """Every scalar of a run by its tag; none where there are no TensorBoard files."""
    if not event_files(folder):
        return {}
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of the points that each resume took back
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 1, "images": 1})
    events.Reload()
    return {
        tag: thinned(joined([(event.step, event.value) for event in events.Scalars(tag)])) for tag in events.Tags()["scalars"]
    }


def joined(points: list[tuple[int, float]]) -> Curve:
    """One curve of what a run wrote in all its starts.

    A run that was killed goes on from its last checkpoint, so what it had written after that stands there twice: a point takes
    the place of all former ones from its batch on. A run that began anew replaces the old one in the same way.

    Args:
        points: Batches and values, as they were written.
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
    """At most ``limit`` points, evenly chosen, the first and the last among them."""
    n = len(curve.batches)
    if n <= limit:
        return curve
    kept = [i * (n - 1) // (limit - 1) for i in range(limit)]
    return Curve([curve.batches[i] for i in kept], [curve.values[i] for i in kept])

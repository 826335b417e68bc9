"""Charts over training: learning curves of all runs, and execution statuses of their samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reft_pl.evaluation.report.charts import Chart, Scale, axes, finite, label, run_colour
from reft_pl.evaluation.report.runs import Run
from reft_pl.types import Status

FIGURES: dict[str, tuple[str, Scale]] = {
    "val/top1": ("Validation: greedy Top-1", "share"),
    "val/rerank": ("Validation: rerank@n", "share"),
    "val/weighted": ("Validation: vote weighted by scores", "share"),
    "val/auc": ("Validation: AUC within a question", "share"),
    "rollout/reward": ("Training samples: mean reward", "linear"),
    "rollout/accuracy": ("Training samples: accuracy", "share"),
    "rollout/kl": ("KL to the reference, nats a response", "linear"),
    "rollout/entropy": ("Entropy, nats a token", "linear"),
    "rollout/response_tokens": ("Response length, tokens", "linear"),
    "train/loss": ("Supervised loss", "log"),
    "update/loss": ("Loss on rollouts", "linear"),
    "update/explained_variance": ("Explained variance of the values", "linear"),
}
"""TensorBoard tags that get a chart, with title and scale. All others stay in TensorBoard."""

STATUS_COLOURS = ("#2f9470", "#b5566b", "#c8642b", "#a07d1e", "#a561a8", "#3f7fbf", "#3d93a8", "#7c7f8a")
STATUS_ORDER = tuple(dict.fromkeys([Status.OK, Status.EXCEPTION, Status.SYNTAX_ERROR, Status.NO_SOLUTION, *Status]))
"""From the bottom of a chart; the common ones come first, so that their colours are unique."""

FEW_POINTS = 30
"""Curves with up to this many points get markers."""


def learning_curves(runs: Sequence[Run]) -> list[Chart]:
    """Return one chart per figure, with a line for each run that logged it."""
    charts = []
    for tag, (title, scale) in FIGURES.items():
        if lines := list(_lines(runs, tag)):
            charts.append(Chart(title, lines, axes("training batches", scale)))
    return charts


def _lines(runs: Sequence[Run], tag: str) -> Iterator[dict[str, Any]]:
    for index, run in enumerate(runs):
        if curve := run.curves.get(tag):
            yield {
                "name": label(run.name),
                "x": curve.batches,
                "y": finite(curve.values),
                "mode": "lines+markers" if len(curve.batches) <= FEW_POINTS else "lines",
                "line": {"color": run_colour(index), "width": 1.8},
            }


def status_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return a stacked area chart of execution statuses for each run that sampled in training."""
    return [Chart(run.name, areas, _whole()) for run in runs if (areas := list(_areas(run)))]


def _areas(run: Run) -> Iterator[dict[str, Any]]:
    for place, status in enumerate(STATUS_ORDER):
        curve = run.curves.get(f"status/{status.value}")
        if curve and any(value > 0 for value in curve.values):
            colour = STATUS_COLOURS[place % len(STATUS_COLOURS)]
            yield {
                "name": status.value.replace("_", " "),
                "x": curve.batches,
                "y": finite(curve.values),
                "mode": "lines",
                "stackgroup": "statuses",
                "line": {"color": colour, "width": 0.5},
                "fillcolor": f"{colour}b0",
            }


def _whole() -> dict[str, Any]:
    layout = axes("training batches", "share")
    layout["yaxis"]["range"] = [0, 1]
    return layout

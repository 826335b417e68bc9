"""Format the figures that the verbs print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KINDS = {
    "rerank": "rerank",
    "weighted": "weighted vote",
    "tie_break": "vote with ties broken by score",
    "voting": "vote",
    "pass": "upper bound",
}
"""Printed name of each way to choose among n samples, by its name in ``results.json``."""


def in_words(figures: Mapping[str, Any]) -> str:
    """Format the figures of a test set as one line."""
    if "top1" in figures:
        return f"Top-1 {with_interval((figures['top1'], *figures['interval95']))} of {figures['n']} questions"
    n = figures["n"]
    text = ", ".join(f"{label} {with_interval(figures[f'{kind}@{n}'])}" for kind, label in KINDS.items())
    return f"{n} samples of {figures['questions']} questions, {text}"


def with_interval(figure: Sequence[float]) -> str:
    """Format (share, low, high) as a percentage with its 95% interval."""
    share, low, high = figure
    return f"{share:.1%} (95%: {low:.1%} to {high:.1%})"

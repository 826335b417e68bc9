"""95% intervals of accuracies and of paired differences of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

Z95 = 1.959963984540054


UNSEEN_VARIANCE = 0.25
"""Largest possible variance of a figure in [0, 1]; ``mean_interval`` assigns it to one extra, unseen question."""


def wilson_interval(correct: float, total: float) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, as fractions; (0, 1) if nothing was observed.

    Source: Wilson 1927, the inverted score test.
    """
    if total == 0:
        return 0.0, 1.0
    p, z2 = correct / total, Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * sqrt(max(0.0, p * (1 - p)) / total + z2 / (4 * total**2))
    # The interval contains p; rounding must not exclude it at 0 and 1.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95% interval over questions of per-question figures in [0, 1]: ``(mean, low, high)``.

    This is Wilson's interval with an effective number of questions ``n_eff = p (1 - p) / SE^2``: the number of 0-or-1 figures
    with the same standard error. For 0-or-1 figures it equals n, and the interval is Wilson's own. Fractions vary less, so
    n_eff is larger.

    If nearly all figures are 0 (or all 1), their variance is unreliable: a single 1/16 among zeros would count as sixteen
    times the questions. So one extra question of the largest variance is added to both terms: ``n_eff = n (n p (1 - p) + 1/4)
    / (sum of (x - p)^2 + 1/4)``. For 0-or-1 figures this is still n.

    Raises:
        ValueError: There are no values.
    """
    n, mean, scatter = _moments(values)
    effective = n * (n * mean * (1 - mean) + UNSEEN_VARIANCE) / (scatter + UNSEEN_VARIANCE)
    return mean, *wilson_interval(mean * effective, effective)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean gain on the same questions with its 95% normal interval: ``(difference, low, high)``.

    A question's figure is 0 or 1, or the share of several runs that solved it. The interval is of the mean per-question
    difference. Questions on which both agree add no width, so it is narrower than for independent samples. It covers the
    choice of questions, not the variation between training runs.

    Raises:
        ValueError: The sequences differ in length or are empty.
    """
    if len(before) != len(after):
        raise ValueError(f"paired figures must be of one length, got {len(before)} and {len(after)}")
    n, mean, scatter = _moments([b - a for a, b in zip(before, after, strict=True)])
    half = Z95 * sqrt(scatter / max(1, n - 1) / n)
    return mean, mean - half, mean + half


def _moments(values: Sequence[float]) -> tuple[int, float, float]:
    """Return the number, the mean, and the sum of squared deviations from the mean."""
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = sum(values) / n
    return n, mean, sum((value - mean) ** 2 for value in values)

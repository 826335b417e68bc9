"""95% intervals for accuracies and for paired differences of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

Z95 = 1.959963984540054


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, equation of the score test inverted), as fractions.

    With nothing observed it is (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    p, z2 = correct / total, Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    # The interval holds p; rounding must not say otherwise at 0 and 1.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of per-question figures in [0, 1] with the 95% normal interval over questions: ``(mean, low, high)``.

    Raises:
        ValueError: there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / max(1, n - 1)
    half = Z95 * sqrt(variance / n)
    return mean, mean - half, mean + half


def paired_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Mean gain on the same questions with its 95% interval: ``(difference, low, high)``.

    A question's figure is 0 or 1, or the share of several runs that solved it. The interval is that of the mean of the
    per-question differences; questions on which the two agree add nothing to its width, which makes it narrower than one of
    independent samples. It speaks of the draw of questions, not of the draw of further runs.

    Raises:
        ValueError: the sequences differ in length or are empty.
    """
    if len(before) != len(after):
        raise ValueError(f"paired figures must be of one length, got {len(before)} and {len(after)}")
    return mean_interval([b - a for a, b in zip(before, after, strict=True)])

"""95% intervals for accuracies and for paired differences of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

Z95 = 1.959963984540054


UNSEEN_VARIANCE = 0.25
"""The largest variance that a figure in [0, 1] can have: what ``mean_interval`` grants a question that it has not seen."""


def wilson_interval(correct: float, total: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, equation of the score test inverted), as fractions.

    With nothing observed it is (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    p, z2 = correct / total, Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * sqrt(max(0.0, p * (1 - p)) / total + z2 / (4 * total**2))
    # The interval holds p; rounding must not say otherwise at 0 and 1.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of per-question figures in [0, 1] with its 95% interval over questions: ``(mean, low, high)``.

    Wilson's interval of the effective number of questions ``n_eff = p (1 - p) / SE^2``: so many figures of 0 or 1 would tell as
    much. For figures of 0 or 1 it is n, and the interval Wilson's own; fractions scatter less, so it is more.

    Where nearly all figures are 0 (or 1) their scatter says little: one 1/16 among zeros would count as sixteen times the
    questions. So one more question, of the largest variance, is added to the scatter and to the p (1 - p) that it is compared
    with: ``n_eff = n (n p (1 - p) + 1/4) / (sum of (x - p)^2 + 1/4)``, still n for 0 or 1, all of them alike included.

    Raises:
        ValueError: there are no values.
    """
    n, mean, scatter = _moments(values)
    effective = n * (n * mean * (1 - mean) + UNSEEN_VARIANCE) / (scatter + UNSEEN_VARIANCE)
    return mean, *wilson_interval(mean * effective, effective)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Mean gain on the same questions with its 95% normal interval: ``(difference, low, high)``.

    A question's figure is 0 or 1, or the share of several runs that solved it. The interval is that of the mean of the
    per-question differences; questions on which the two agree add nothing to its width, which makes it narrower than one of
    independent samples. It speaks of the draw of questions, not of the draw of further runs.

    Raises:
        ValueError: the sequences differ in length or are empty.
    """
    if len(before) != len(after):
        raise ValueError(f"paired figures must be of one length, got {len(before)} and {len(after)}")
    n, mean, scatter = _moments([b - a for a, b in zip(before, after, strict=True)])
    half = Z95 * sqrt(scatter / max(1, n - 1) / n)
    return mean, mean - half, mean + half


def _moments(values: Sequence[float]) -> tuple[int, float, float]:
    """Number, mean, and sum of squared distances from the mean."""
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = sum(values) / n
    return n, mean, sum((value - mean) ** 2 for value in values)

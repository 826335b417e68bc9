"""Explained variance: limits, a hand-computed case, and its floor."""

import pytest
import torch

from reft_pl.rl.statistics import explained_variance

NAN = float("nan")
MASK = torch.tensor([[True, True, False], [True, True, False]])
RETURNS = torch.tensor([[1.0, 2.0, NAN], [3.0, 4.0, NAN]])


def test_explained_variance_limits() -> None:
    assert explained_variance(RETURNS, RETURNS, MASK).item() == 1
    assert explained_variance(torch.zeros(2, 3), RETURNS, MASK).item() == 0
    assert explained_variance(RETURNS + 7, RETURNS, MASK).item() == pytest.approx(1)  # a constant error is not variance


def test_explained_variance_by_hand() -> None:
    """Returns 1, 2, 3, 4 and values 1, 1, 4, 4: errors 0, 1, -1, 0; variances 5/3 and 2/3, so 1 - 2/5."""
    values = torch.tensor([[1.0, 1.0, NAN], [4.0, 4.0, NAN]])
    assert explained_variance(values, RETURNS, MASK).item() == pytest.approx(0.6)


def test_explained_variance_is_floored() -> None:
    assert explained_variance(-9 * RETURNS, RETURNS, MASK).item() == -1


def test_constant_returns_explain_nothing() -> None:
    assert explained_variance(RETURNS, torch.ones(2, 3), MASK).item() == 0

"""Means over a mini-batch: which one, and that the shares of micro-batches add up to it."""

import pytest
import torch

from reft_pl.rl.aggregation import Aggregation

X = torch.tensor([[1.0, 0.0, 0.0], [4.0, 5.0, 6.0], [9.0, 9.0, 9.0]])
MASK = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])


@pytest.mark.parametrize(("kind", "expected"), [("sequence", (1 + 5) / 2), ("token", 16 / 4)])
def test_by_hand_and_in_parts(kind: str, expected: float) -> None:
    """The row without an action, a completion left out, counts in neither."""
    mean = Aggregation(kind, MASK)  # type: ignore[arg-type]
    assert mean(X, MASK).item() == pytest.approx(expected)
    assert sum(mean(X[i : i + 1], MASK[i : i + 1]).item() for i in range(3)) == pytest.approx(expected)

"""Averages over a mini-batch: their values, and that the results of micro-batches sum to them."""

import pytest
import torch

from reft_pl.rl.aggregation import Aggregation

X = torch.tensor([[1.0, 0.0, 0.0], [4.0, 5.0, 6.0], [9.0, 9.0, 9.0]])
MASK = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sequence", (1 + 5) / 2), ("token", 16 / 4), ("sequence_sum", 16 / 2), ("constant", 16 / (3 * 10))],
)
def test_by_hand_and_in_parts(kind: str, expected: float) -> None:
    """Only ``constant`` counts the row without an action (a masked completion)."""
    mean = Aggregation(kind, MASK, max_tokens=10)  # type: ignore[arg-type]
    assert mean(X, MASK).item() == pytest.approx(expected)
    assert sum(mean(X[i : i + 1], MASK[i : i + 1]).item() for i in range(3)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["sequence", "token", "sequence_sum", "constant"])
def test_ranks_that_average_their_gradients_find_the_mean_of_all(kind: str) -> None:
    """Two ranks with different numbers of rows: the mean of their results is the mean over the mini-batch."""
    parts = [(X[:1], MASK[:1]), (X[1:], MASK[1:])]
    counts: list[int] = []
    for _, mask in parts:
        Aggregation(kind, mask, lambda n: counts.append(n) or 1.0)  # type: ignore[arg-type, func-returns-value]
    shares = [Aggregation(kind, m, lambda _: sum(counts) / 2, max_tokens=10)(x, m) for x, m in parts]  # type: ignore[arg-type]
    whole = Aggregation(kind, MASK, max_tokens=10)(X, MASK)  # type: ignore[arg-type]
    assert sum(shares).item() / 2 == pytest.approx(whole.item())  # type: ignore[union-attr]

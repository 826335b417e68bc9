"""Masked statistics: hand-computed cases, NaN outside the mask, and sums over micro-batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reft_pl.rl.masks import (
    at_last_action,
    masked_max,
    masked_mean,
    masked_sum,
    sequence_mean,
    token_mean,
    zero_outside,
)
from reft_pl.rl.statistics import variance_over_ranks

NAN = float("nan")
X = torch.tensor([[1.0, 2.0, NAN], [NAN, 6.0, 3.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [False, True, True]])


def test_hand_computed() -> None:
    assert masked_sum(X, MASK).item() == 12
    assert masked_sum(X, MASK, dim=-1).tolist() == [3, 9]
    assert masked_mean(X, MASK).item() == 3
    assert masked_mean(X, MASK, dim=-1).tolist() == [1.5, 4.5]
    assert variance_over_ranks(X, MASK).item() == pytest.approx((4 + 1 + 9 + 0) / 3)
    assert masked_max(X, MASK).item() == 6
    assert masked_max(X[:0], MASK[:0]).item() == 0


def test_token_mean_and_sequence_mean_weigh_differently() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0], [4.0, 5.0, 6.0]])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    assert token_mean(x, mask).item() == (1 + 4 + 5 + 6) / 4
    assert sequence_mean(x, mask).item() == (1 + 5) / 2


def test_a_row_without_positions_is_not_a_sequence() -> None:
    x = torch.tensor([[2.0, 4.0], [NAN, NAN]])
    mask = torch.tensor([[True, True], [False, False]])
    assert sequence_mean(x, mask).item() == 3


def test_nothing_selected_is_zero() -> None:
    x, mask = torch.full((2, 3), NAN), torch.zeros(2, 3, dtype=torch.bool)
    for function in (masked_sum, masked_mean, variance_over_ranks, masked_max, token_mean, sequence_mean):
        assert function(x, mask).item() == 0, function


def test_variance_of_one_element_is_zero() -> None:
    assert variance_over_ranks(torch.tensor([[5.0, NAN]]), torch.tensor([[True, False]])).item() == 0


@pytest.mark.parametrize("statistic", [masked_sum, masked_mean, variance_over_ranks, masked_max, token_mean, sequence_mean])
def test_nan_outside_the_mask_reaches_neither_value_nor_gradient(statistic) -> None:  # type: ignore[no-untyped-def]
    x = X.clone().requires_grad_()
    statistic(x, MASK).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad[~MASK] == 0).all()


def test_nan_inside_the_mask_is_seen() -> None:
    for function in (masked_sum, masked_mean, variance_over_ranks, masked_max, token_mean, sequence_mean):
        assert function(X, torch.ones_like(MASK)).isnan(), function


@pytest.mark.parametrize("mask", [MASK.float(), MASK[:, :2]])
def test_a_mask_of_another_dtype_is_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"bool mask of shape \(2, 3\)"):
        zero_outside(X, mask)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), b=st.integers(1, 9), t=st.integers(1, 7), pieces=st.integers(1, 9))
def test_micro_batches_sum_to_the_mini_batch(seed: int, b: int, t: int, pieces: int) -> None:
    """Values and gradients, for any split and any extra padding of the parts."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, generator=generator, dtype=torch.float64)
    mask = torch.rand(b, t, generator=generator) < 0.6
    n_sequences, n_tokens = mask.any(-1).sum().item(), mask.sum().item()
    if n_tokens == 0:
        return
    for mean, n in ((sequence_mean, n_sequences), (token_mean, n_tokens)):
        whole, split = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected = mean(whole, mask)
        expected.backward()
        total = torch.zeros((), dtype=torch.float64)
        for i, (part, part_mask) in enumerate(zip(split.tensor_split(pieces), mask.tensor_split(pieces), strict=True)):
            padding = torch.full((part.shape[0], i), NAN, dtype=torch.float64)
            no = torch.zeros_like(padding, dtype=torch.bool)
            total = total + mean(torch.cat([padding, part, padding], 1), torch.cat([no, part_mask, no], 1), n)
        total.backward()
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(split.grad, whole.grad, rtol=1e-12, atol=1e-12)


def test_an_outcome_is_placed_at_the_last_action() -> None:
    mask = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    assert at_last_action(torch.tensor([1.0, 0.5, 9.0]), mask).tolist() == [[0, 1, 0], [0, 0, 0.5], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(1, 3\)"):
        at_last_action(torch.ones(1, 3), mask)

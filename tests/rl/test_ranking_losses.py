"""Pointwise and groupwise losses of a reranker, by hand and against other implementations."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 (its usual name)

from reft_pl.rl.ranking_losses import groupwise_loss, pointwise_loss


def test_pointwise_is_the_cross_entropy_of_the_two_logits() -> None:
    logits, labels = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 0, 1, 1, 0])
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(pointwise_loss(logits[:, 1] - logits[:, 0], labels.bool()), expected)


def test_groupwise_by_hand() -> None:
    # Question 0: correct e^1 of e^1 + e^0. Question 1: two correct ones, weighted 2 and 1, and a wrong one, weighted 3.
    margins = torch.tensor([1.0, 0.0, 0.0, math.log(4.0), math.log(2.0)])
    labels = torch.tensor([True, False, True, True, False])
    weights, groups = torch.tensor([1.0, 1.0, 2.0, 1.0, 3.0]), torch.tensor([0, 0, 1, 1, 1])
    expected = [-math.log(math.e / (math.e + 1)), -math.log((2 + 4) / (2 + 4 + 6))]
    assert groupwise_loss(margins, labels, weights, groups, 2).tolist() == pytest.approx(expected)


def test_one_correct_solution_is_a_softmax_cross_entropy_with_its_gradient() -> None:
    margins = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine, other = margins.flatten().requires_grad_(), margins.clone().requires_grad_()
    correct = torch.tensor([4, 0, 2])
    labels = F.one_hot(correct, 5).bool().flatten()
    groups = torch.arange(3).repeat_interleave(5)
    loss = groupwise_loss(mine, labels, torch.ones(15, dtype=torch.float64), groups, 3)
    expected = F.cross_entropy(other, correct, reduction="none")
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad.view(3, 5), other.grad)


def test_large_margins_stay_finite() -> None:
    margins = torch.tensor([1000.0, -1000.0, -1000.0, 1000.0], requires_grad=True)
    labels, groups = torch.tensor([True, False, True, False]), torch.tensor([0, 0, 1, 1])
    loss = groupwise_loss(margins, labels, torch.ones(4), groups, 2)
    assert loss.tolist() == [0.0, 2000.0]
    loss.sum().backward()
    assert bool(torch.isfinite(margins.grad).all())


def test_a_solution_sampled_twice_counts_like_two_equal_ones() -> None:
    margins, labels = torch.tensor([0.3, -0.2, 0.9]), torch.tensor([True, False, False])
    weighted = groupwise_loss(margins, labels, torch.tensor([1.0, 2.0, 1.0]), torch.zeros(3, dtype=torch.int64), 1)
    margins, labels = torch.tensor([0.3, -0.2, -0.2, 0.9]), torch.tensor([True, False, False, False])
    torch.testing.assert_close(weighted, groupwise_loss(margins, labels, torch.ones(4), torch.zeros(4, dtype=torch.int64), 1))

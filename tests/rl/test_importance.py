"""Importance weights that correct the mismatch between sampler and scorer."""

import math

import pytest
import torch

from reft_pl.rl.importance import sampler_mismatch, truncated_importance

NAN = float("nan")
OLD = torch.tensor([[-1.0, -2.0, NAN], [-0.5, -4.0, -3.0]])
RECORDED = torch.tensor([[-1.5, -2.0, -1.0], [-0.25, -9.0, NAN]])
MASK = torch.tensor([[True, True, False], [True, True, False]])


def test_a_weight_is_the_ratio_truncated_at_the_cap() -> None:
    weights = truncated_importance(OLD, RECORDED, MASK, cap=2.0)
    expected = torch.tensor([[math.exp(0.5), 1.0, 1.0], [math.exp(-0.25), 2.0, 1.0]])
    torch.testing.assert_close(weights, expected)


def test_a_cap_below_one_does_not_affect_other_positions() -> None:
    assert truncated_importance(OLD, RECORDED, MASK, cap=0.5)[~MASK].tolist() == [1.0, 1.0]


def test_the_mismatch_is_the_distance_of_the_logprobs_of_actions() -> None:
    torch.testing.assert_close(sampler_mismatch(OLD, RECORDED, MASK), torch.tensor([[0.5, 0.0, 0.0], [0.25, 5.0, 0.0]]))


@pytest.mark.parametrize("cap", [100.0, 1.2])
def test_the_weighted_mean_is_the_policys_up_to_truncation(cap: float) -> None:
    """Exact, over a distribution of five tokens: sum mu w f = sum min(pi, C mu) f."""
    generator = torch.Generator().manual_seed(0)
    pi, mu = torch.randn(2, 5, generator=generator).log_softmax(-1)
    f = torch.randn(5, generator=generator)
    weights = truncated_importance(pi[None], mu[None], torch.ones(1, 5, dtype=torch.bool), cap)[0]
    under_policy = torch.minimum(pi.exp(), cap * mu.exp()) @ f
    torch.testing.assert_close((mu.exp() * weights) @ f, under_policy)
    if cap == 100.0:
        torch.testing.assert_close((mu.exp() * weights) @ f, pi.exp() @ f)

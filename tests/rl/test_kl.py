"""KL estimates and the penalised reward."""

import pytest
import torch

from reft_pl.rl.kl import k1_kl, k3_kl, kl_penalised_rewards, sequence_kl

NAN = float("nan")
LOGPROBS = torch.tensor([[NAN, -1.0, -2.0, NAN], [-0.5, -1.5, -0.25, NAN]], dtype=torch.float64)
REFERENCE = torch.tensor([[NAN, -1.5, -1.0, NAN], [-0.5, -1.0, -1.25, NAN]], dtype=torch.float64)
MASK = ~LOGPROBS.isnan()


def test_hand_computed() -> None:
    assert k1_kl(LOGPROBS, REFERENCE, MASK).tolist() == [[0, 0.5, -1, 0], [0, -0.5, 1, 0]]
    assert sequence_kl(LOGPROBS, REFERENCE, MASK).tolist() == [-0.5, 0.5]
    rewards = kl_penalised_rewards(torch.tensor([1.0, 0.5]), LOGPROBS, REFERENCE, MASK, kl_coef=0.25)
    assert rewards.tolist() == [[0, -0.125, 1.25, 0], [0, 0.125, 0.25, 0]]
    assert rewards.dtype == torch.float64


def test_equal_policies_leave_the_outcome_alone_at_the_last_action() -> None:
    rewards = kl_penalised_rewards(torch.tensor([0.1, 1.0]), LOGPROBS, LOGPROBS, MASK, kl_coef=0.05)
    torch.testing.assert_close(rewards, torch.tensor([[0, 0, 0.1, 0], [0, 0, 1, 0]], dtype=torch.float64))


def test_a_row_without_actions_gets_nothing() -> None:
    mask = MASK.clone()
    mask[0] = False
    assert kl_penalised_rewards(torch.ones(2), LOGPROBS, REFERENCE, mask, kl_coef=0.0).sum(-1).tolist() == [0, 1]


def test_outcomes_must_be_one_a_sequence() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(1, 2\)"):
        kl_penalised_rewards(torch.ones(1, 2), LOGPROBS, REFERENCE, MASK, 0.1)


def test_both_estimators_have_the_divergence_as_expectation() -> None:
    """Exactly: every token of a vocabulary of 6 once, weighted with its probability."""
    p, q = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    mask = torch.ones(1, 6, dtype=torch.bool)
    for estimator in (k1_kl, k3_kl):
        expectation = (p.exp() * estimator(p[None], q[None], mask)[0]).sum()
        torch.testing.assert_close(expectation, exact)
    assert (k3_kl(p[None], q[None], mask) >= 0).all()

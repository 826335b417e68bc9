"""GAE: a hand-computed case, both limits, an independent reference, and invariance to padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reft_pl.rl.advantages import generalized_advantages

NAN = float("nan")
F64 = torch.float64


def test_hand_computed() -> None:
    """Two actions, gamma 0.9, lambda 0.5.

    delta_1 = 1 - 0.4 = 0.6; delta_0 = 0.1 + 0.9 * 0.4 - 0.2 = 0.26; A_1 = 0.6; A_0 = 0.26 + 0.45 * 0.6 = 0.53.
    """
    rewards = torch.tensor([[NAN, 0.1, 1.0, NAN]], dtype=F64)
    values = torch.tensor([[NAN, 0.2, 0.4, NAN]], dtype=F64)
    mask = torch.tensor([[False, True, True, False]])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.9, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0, 0.53, 0.6, 0]], dtype=F64))
    torch.testing.assert_close(returns, torch.tensor([[0, 0.73, 1.0, 0]], dtype=F64))


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and a mask with contiguous rows, some of them empty."""
    b, t = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    rewards, values = torch.randn(2, b, t, generator=generator, dtype=F64)
    mask = torch.zeros(b, t, dtype=torch.bool)
    for row in mask:
        start = draw(st.integers(0, t))
        row[start : draw(st.integers(start, t))] = True
    return rewards, values, mask


def runs(mask: Tensor) -> list[tuple[int, list[int]]]:
    return [(b, row.nonzero().flatten().tolist()) for b, row in enumerate(mask)]


@settings(max_examples=40, deadline=None)
@given(rollout=rollouts())
def test_lambda_and_gamma_one_is_reward_to_go_less_value(rollout: tuple[Tensor, Tensor, Tensor]) -> None:
    rewards, values, mask = rollout
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    for b, actions in runs(mask):
        for t in actions:
            reward_to_go = sum(rewards[b, k].item() for k in actions if k >= t)
            assert returns[b, t].item() == pytest.approx(reward_to_go)
            assert advantages[b, t].item() == pytest.approx(reward_to_go - values[b, t].item())


@settings(max_examples=40, deadline=None)
@given(rollout=rollouts(), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_equals_the_sum_of_discounted_errors(rollout: tuple[Tensor, Tensor, Tensor], gamma: float, lam: float) -> None:
    """A_t = sum_k (gamma lambda)^(k - t) delta_k, computed forwards from the definition."""
    rewards, values, mask = rollout
    advantages, returns = generalized_advantages(rewards, values, mask, gamma, lam)
    assert (advantages[~mask] == 0).all()
    assert (returns[~mask] == 0).all()
    for b, actions in runs(mask):
        for t in actions:
            expected = 0.0
            for k in actions:
                if k < t:
                    continue
                next_value = values[b, k + 1].item() if k + 1 in actions else 0.0
                expected += (gamma * lam) ** (k - t) * (rewards[b, k].item() + gamma * next_value - values[b, k].item())
            assert advantages[b, t].item() == pytest.approx(expected, abs=1e-10)
            assert returns[b, t].item() == pytest.approx(expected + values[b, t].item(), abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(rollout=rollouts(), left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_on_either_side_changes_nothing(rollout: tuple[Tensor, Tensor, Tensor], left: int, right: int) -> None:
    rewards, values, mask = rollout
    expected = generalized_advantages(rewards, values, mask, gamma=0.99, lam=0.95)

    def pad(x: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(x, (left, right), value=value)

    padded = generalized_advantages(pad(rewards, NAN), pad(values, NAN), pad(mask, False), gamma=0.99, lam=0.95)
    for whole, part in zip(padded, expected, strict=True):
        assert torch.equal(whole[:, left : whole.shape[1] - right], part)


def test_no_gradient_flows_into_values() -> None:
    values = torch.randn(2, 3, requires_grad=True)
    advantages, returns = generalized_advantages(torch.randn(2, 3), values, torch.ones(2, 3, dtype=torch.bool), 1.0, 0.95)
    assert not advantages.requires_grad
    assert not returns.requires_grad

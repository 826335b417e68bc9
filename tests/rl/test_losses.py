"""PPO losses: hand-computed cases, properties at ratio 1, and where the gradient vanishes."""

import pytest
import torch

from reft_pl.rl.losses import clipped_ratio_loss, clipped_value_loss, policy_ratio, sequence_ratio, token_cross_entropy
from reft_pl.rl.masks import sequence_mean

NAN = float("nan")


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.0),  # inside the range: -rho A
        (1.5, 2.0, -2.4, 0.0),  # above the range: clipped at 1.2, no gradient
        (0.5, 2.0, -1.0, -2.0),  # a good action became less likely: the unclipped term pulls it back
        (1.5, -2.0, 3.0, 2.0),  # a bad action became more likely: the same
        (0.5, -2.0, 1.6, 0.0),  # a bad action already unlikely: clipped at 0.8
    ],
)
def test_ppo_clip_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    rho = torch.tensor([[ratio]], requires_grad=True)
    result = clipped_ratio_loss(rho, torch.tensor([[advantage]]), torch.tensor([[True]]), 0.8, 1.2)
    result.sum().backward()
    assert result.item() == pytest.approx(loss)
    assert rho.grad is not None
    assert rho.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (4.0, -2.0, 6.0, 0.0),  # a bad action at ratio 4 costs no more than at ratio 3
        (2.5, -2.0, 5.0, 2.0),  # below the bound: unchanged
        (4.0, 2.0, -2.4, 0.0),  # a good action is unaffected
    ],
)
def test_dual_clip_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    rho = torch.tensor([[ratio]], requires_grad=True)
    result = clipped_ratio_loss(rho, torch.tensor([[advantage]]), torch.tensor([[True]]), 0.8, 1.2, dual_clip=3.0)
    result.sum().backward()
    assert result.item() == pytest.approx(loss)
    assert rho.grad is not None
    assert rho.grad.item() == pytest.approx(gradient)


def test_the_sequence_ratio_is_the_geometric_mean_of_the_actions() -> None:
    """Ratios 2 and 8 have the geometric mean 4; each of the two log-probabilities moves it by half of itself."""
    new = torch.tensor([[NAN, 2.0, 8.0, NAN]]).log().requires_grad_()
    old, mask = torch.tensor([[NAN, 0.0, 0.0, NAN]]), torch.tensor([[False, True, True, False]])
    ratio = sequence_ratio(new, old, mask)
    torch.testing.assert_close(ratio, torch.tensor([[1.0, 4.0, 4.0, 1.0]]))
    ratio[0, 1].backward()
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, 2.0, 2.0, 0.0]]))


@pytest.mark.parametrize(
    ("value", "loss", "gradient"),
    [
        (0.6, 0.08, -0.4),  # old 0.5, return 1: inside the range, 0.5 * 0.4^2
        (0.9, 0.045, 0.0),  # moved more than 0.2 towards the return: clipped to 0.7
        (0.1, 0.405, -0.9),  # moved away from the return: not clipped
    ],
)
def test_value_loss_by_hand(value: float, loss: float, gradient: float) -> None:
    v = torch.tensor([[value]], requires_grad=True)
    result = clipped_value_loss(v, torch.tensor([[0.5]]), torch.tensor([[1.0]]), torch.tensor([[True]]), clip_range=0.2)
    result.sum().backward()
    assert result.item() == pytest.approx(loss)
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(gradient)


def test_at_ratio_one_the_loss_is_minus_the_mean_advantage_and_its_gradient_the_policy_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(3, 5, generator=generator)
    advantages = torch.randn(3, 5, generator=generator)
    mask = torch.rand(3, 5, generator=generator) < 0.7
    logprobs = old.clone().requires_grad_()
    loss = sequence_mean(clipped_ratio_loss(policy_ratio(logprobs, old, mask), advantages, mask, 0.8, 1.2), mask)
    torch.testing.assert_close(loss, -sequence_mean(advantages, mask))
    reinforce = logprobs.detach().clone().requires_grad_()
    (-sequence_mean(reinforce * advantages, mask)).backward()
    loss.backward()
    torch.testing.assert_close(logprobs.grad, reinforce.grad)


def test_nan_outside_the_mask_reaches_neither_loss_nor_gradient() -> None:
    mask = torch.tensor([[False, True, False]])
    old = advantages = returns = torch.tensor([[NAN, 0.5, NAN]])
    new = torch.tensor([[NAN, 0.4, NAN]], requires_grad=True)
    ratio = policy_ratio(new, old, mask)
    assert ratio[~mask].tolist() == [1, 1]
    terms = (
        clipped_ratio_loss(ratio, advantages, mask, 0.8, 1.2),
        clipped_value_loss(new, old, returns, mask, 0.2),
        token_cross_entropy(new, mask),
    )
    for term in terms:
        assert (term[~mask] == 0).all()
    torch.stack(terms).sum().backward()
    assert new.grad is not None
    assert torch.isfinite(new.grad).all()
    assert (new.grad[~mask] == 0).all()


def test_nan_inside_the_mask_reaches_the_loss() -> None:
    """Otherwise the guard against non-finite updates would not detect it."""
    mask, x, nan = torch.tensor([[True]]), torch.tensor([[0.5]]), torch.tensor([[NAN]])
    assert clipped_ratio_loss(policy_ratio(nan, x, mask), x, mask, 0.8, 1.2).isnan().all()
    assert clipped_value_loss(nan, x, x, mask, 0.2).isnan().all()
    assert token_cross_entropy(nan, mask).isnan().all()


def test_token_cross_entropy_equals_torch() -> None:
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 3], [4, 5, 6]])
    logprobs = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(token_cross_entropy(logprobs, torch.ones(2, 3, dtype=torch.bool)), expected)

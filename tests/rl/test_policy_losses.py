"""Policy losses: the formula of each, and its clip fraction."""

import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.rl.losses import clipped_ratio_loss, policy_ratio, sequence_ratio
from reft_pl.rl.policy_losses import PolicyLoss, PPOClip, SequenceClip

OLD = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
NEW = torch.tensor([[0.5, -0.5, 0.1], [0.3, 0.3, -9.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
ADVANTAGES = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])


def test_ppo_clip_with_higher_and_dual_clip() -> None:
    ratio = PPOClip().ratio(NEW, OLD, MASK)
    torch.testing.assert_close(ratio, policy_ratio(NEW, OLD, MASK))
    for loss, bounds in [
        (PPOClip(), (0.8, 1.2, None)),
        (PPOClip(0.2, clip_higher=0.28), (0.8, 1.28, None)),
        (PPOClip(0.1, dual_clip=1.2), (0.9, 1.1, 1.2)),
    ]:
        torch.testing.assert_close(
            loss.per_action(ratio, ADVANTAGES, MASK), clipped_ratio_loss(ratio, ADVANTAGES, MASK, *bounds)
        )


def test_clip_higher_lets_a_rare_action_become_likelier() -> None:
    ratio, one = torch.tensor([[1.25]]), torch.tensor([[True]])
    assert PPOClip().per_action(ratio, torch.ones(1, 1), one).item() == pytest.approx(-1.2)
    assert PPOClip(clip_higher=0.28).per_action(ratio, torch.ones(1, 1), one).item() == pytest.approx(-1.25)


def test_clip_fractions_count_both_sides() -> None:
    ratio = torch.tensor([[0.7, 0.9, 1.1, 1.3]])
    assert PPOClip().outside(ratio).tolist() == [[True, False, False, True]]
    assert PPOClip(clip_higher=0.4).outside(ratio).tolist() == [[True, False, False, False]]


def test_the_sequence_clip_uses_one_ratio_per_response() -> None:
    loss = SequenceClip(clip_range=0.1, clip_higher=0.2)
    ratio = loss.ratio(NEW, OLD, MASK)
    torch.testing.assert_close(ratio, sequence_ratio(NEW, OLD, MASK))
    torch.testing.assert_close(ratio[1, 0], torch.tensor(0.3).exp())
    assert loss.outside(ratio).tolist() == [[False] * 3, [True, True, False]]


def test_a_custom_policy_loss_is_one_method() -> None:
    class Unclipped(PolicyLoss):
        def per_action(self, ratio: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return -ratio * advantages * mask

    loss = Unclipped()
    ratio = loss.ratio(NEW, OLD, MASK)
    assert loss.per_action(ratio, ADVANTAGES, MASK)[0, 0].item() == pytest.approx(-(0.5**0 * torch.e**0.5))
    assert not loss.outside(ratio).any()


@pytest.mark.parametrize("settings", [{"clip_range": 0.0}, {"clip_higher": -1.0}, {"dual_clip": 1.0}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="clip ranges must be positive and dual_clip above 1"):
        PPOClip(**settings)

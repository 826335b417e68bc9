"""Generalised advantage estimation (arXiv 1506.02438) and reward-to-go."""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import zero_outside


def generalized_advantages(
    rewards: Tensor, values: Tensor, action_mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute the advantage and the return of every action.

    - delta_t = r_t + gamma * v_{t+1} - v_t
    - A_t = delta_t + gamma * lam * A_{t+1}
    - R_t = A_t + v_t

    t runs from a row's last action down to its first, with v_{t+1} = A_{t+1} = 0 after the last. The actions of a row are
    contiguous and may start anywhere, so left and right padding both work.

    Source: arXiv 1506.02438, eq. 16.

    Args:
        rewards: r_t, [B, T].
        values: v_t of the policy that sampled, [B, T].
        action_mask: [B, T] bool.
        gamma: Discount per token, in [0, 1].
        lam: Weight of longer n-step estimates, in [0, 1]; 1 gives R_t = sum_{k>=t} gamma^{k-t} r_k, 0 gives A_t = delta_t.

    Returns:
        A_t and R_t, both [B, T], 0 outside the mask, without gradient.
    """
    r_bt = zero_outside(rewards.detach(), action_mask)
    v_bt = zero_outside(values.detach(), action_mask)
    advantages = torch.zeros_like(r_bt)
    next_value = next_advantage = r_bt.new_zeros(len(r_bt))
    for t in range(r_bt.shape[1] - 1, -1, -1):
        delta = r_bt[:, t] + gamma * next_value - v_bt[:, t]
        # Zero outside the mask, so that nothing propagates through padding or the prompt.
        next_advantage = zero_outside(delta + gamma * lam * next_advantage, action_mask[:, t])
        next_value = v_bt[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + v_bt


def rewards_to_go(rewards: Tensor, action_mask: Tensor) -> Tensor:
    """Compute G_t = sum_{k >= t} r_k over the actions of a row, [B, T], 0 outside the mask, without gradient.

    Args:
        rewards: r_t, [B, T].
        action_mask: [B, T] bool.
    """
    r_bt = zero_outside(rewards.detach(), action_mask)
    return zero_outside(r_bt.flip(-1).cumsum(-1).flip(-1), action_mask)

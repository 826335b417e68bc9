"""Losses per token, [B, T] and 0 outside the mask.

Reduction is apart (``masks.sequence_mean`` for PPO, ``masks.token_mean`` for cross-entropy), because only the caller knows how
many sequences or tokens the mini-batch has of which this is a part. Inputs are selected before any arithmetic, so that a NaN
in padding reaches neither the loss nor a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_mean, zero_outside


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """rho_t = pi(a_t | s_t) / pi_old(a_t | s_t), [B, T]; 1 outside the mask (its logarithm is 0 there)."""
    return zero_outside(logprobs - old_logprobs, mask).exp()


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """s_b = exp(mean_t log rho_t), the geometric mean of a row's ratios (arXiv 2507.18071, eq. 7), at each of its actions.

    [B, T], 1 outside the mask.
    """
    mean = masked_mean(logprobs - old_logprobs, mask, dim=-1)
    return zero_outside(mean.unsqueeze(-1).expand(mask.shape), mask).exp()


def clipped_ratio_loss(
    ratio: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float, dual_clip: float | None = None
) -> Tensor:
    """-min(rho_t A_t, clip(rho_t, low, high) A_t) (PPO, arXiv 1707.06347, eq. 7, with 1 - eps and 1 + eps).

    With ``dual_clip`` c, a negative advantage costs at most -c A_t, however likely the action became (arXiv 1912.09729, eq. 5).

    Args:
        ratio: rho_t of ``policy_ratio``, [B, T], with gradient.
        advantages: A_t, [B, T], constant.
        mask: [B, T] bool.
        low: Least ratio that counts where the advantage is negative.
        high: Greatest ratio that counts where it is positive.
        dual_clip: c > 1, or None.

    Returns:
        [B, T], 0 outside the mask.
    """
    ratio, advantages = zero_outside(ratio, mask), zero_outside(advantages, mask)
    loss = torch.maximum(-ratio * advantages, -ratio.clamp(low, high) * advantages)
    if dual_clip is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float) -> Tensor:
    """0.5 * max((v_t - R_t)^2, (v_old_t + clip(v_t - v_old_t, -eps, eps) - R_t)^2).

    Args:
        values: v_t, [B, T], with gradient.
        old_values: v_old_t at the time of sampling, [B, T], constant.
        returns: R_t, [B, T], constant.
        mask: [B, T] bool.
        clip_range: eps, in units of reward.

    Returns:
        [B, T], 0 outside the mask.
    """
    values, old_values, returns = (zero_outside(x, mask) for x in (values, old_values, returns))
    clipped_values = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped_values - returns).square())


def token_cross_entropy(logprobs: Tensor, mask: Tensor) -> Tensor:
    """-log pi(a_t | s_t) of the target tokens, [B, T] (nats), 0 outside the mask."""
    return zero_outside(-logprobs, mask)

"""Per-token losses, [B, T] and 0 outside the mask.

Reduction is separate (``masks.sequence_mean`` for PPO, ``masks.token_mean`` for cross-entropy): only the caller knows how many
sequences or tokens the whole mini-batch has. Inputs are masked before any arithmetic, so that a NaN in padding reaches neither
the loss nor a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_mean, zero_outside


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Compute rho_t = pi(a_t | s_t) / pi_old(a_t | s_t), [B, T]; 1 outside the mask."""
    return zero_outside(logprobs - old_logprobs, mask).exp()


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Compute s_b = exp(mean_t log rho_t), the geometric mean of a row's ratios, at each of its actions.

    Returns:
        [B, T], 1 outside the mask.

    Source: arXiv 2507.18071, eq. 7.
    """
    mean = masked_mean(logprobs - old_logprobs, mask, dim=-1)
    return zero_outside(mean.unsqueeze(-1).expand(mask.shape), mask).exp()


def clipped_ratio_loss(
    ratio: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float, dual_clip: float | None = None
) -> Tensor:
    """Compute -min(rho_t A_t, clip(rho_t, low, high) A_t).

    With ``dual_clip`` c, the loss of an action with negative advantage is at most -c A_t, however large its ratio.

    Source: PPO, arXiv 1707.06347, eq. 7, where the bounds are 1 - eps and 1 + eps; dual clip, arXiv 1912.09729, eq. 5.

    Args:
        ratio: rho_t of ``policy_ratio``, [B, T], with gradient.
        advantages: A_t, [B, T], constant.
        mask: [B, T] bool.
        low: Lower bound of the ratio; binds if the advantage is negative.
        high: Upper bound of the ratio; binds if the advantage is positive.
        dual_clip: c > 1. None: no dual clip.

    Returns:
        [B, T], 0 outside the mask.
    """
    ratio, advantages = zero_outside(ratio, mask), zero_outside(advantages, mask)
    loss = torch.maximum(-ratio * advantages, -ratio.clamp(low, high) * advantages)
    if dual_clip is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float) -> Tensor:
    """Compute 0.5 * max((v_t - R_t)^2, (v_old_t + clip(v_t - v_old_t, -eps, eps) - R_t)^2).

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
    """Compute -log pi(a_t | s_t) of the target tokens, [B, T] (nats), 0 outside the mask."""
    return zero_outside(-logprobs, mask)

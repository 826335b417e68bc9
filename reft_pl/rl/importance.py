"""A rollout that another engine wrote than the one that scores it: how far the two are apart, and what corrects for it.

The same weights give slightly other log-probabilities where another program, number format or batch shape computes them.
Samples are drawn from mu, the sampler's distribution, while the loss takes them for draws from pi_old, the scorer's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import zero_outside


def sampler_mismatch(old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    """|log pi_old(a_t | s_t) - log mu(a_t | s_t)|, [B, T] (nats), 0 outside the mask.

    Args:
        old_logprobs: log pi_old of the sampled tokens, as the scorer computes it before any update, [B, T].
        sampler_logprobs: log mu of the same tokens, as the sampler reported it, [B, T].
        mask: [B, T] bool.
    """
    return zero_outside(old_logprobs - sampler_logprobs, mask).abs()


def truncated_importance(old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    """w_t = min(pi_old(a_t | s_t) / mu(a_t | s_t), C): the weight of an action's policy loss, 1 outside the mask.

    Truncated importance sampling (Ionides 2008) between sampler and learner, as in "Your Efficient RL Framework Secretly Brings
    You Off-Policy RL Training" (Yao et al. 2025): the expectation under mu of w_t times a term is that under pi_old, but for
    the few actions whose weight is cut at C, without which one improbable token could outweigh a batch.

    Args:
        old_logprobs: log pi_old, [B, T], constant.
        sampler_logprobs: log mu, [B, T], constant.
        mask: [B, T] bool.
        cap: C, positive.
    """
    weights = zero_outside(old_logprobs - sampler_logprobs, mask).exp().clamp(max=cap)
    return torch.where(mask, weights, torch.ones_like(weights))

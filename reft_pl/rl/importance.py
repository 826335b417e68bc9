"""Mismatch between sampler and scorer, and truncated importance sampling to correct it.

With the same weights, another engine, dtype or batch shape gives slightly different log-probabilities. Samples come from mu,
the sampler's distribution, whereas the loss treats them as samples from pi_old, the scorer's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import zero_outside


def sampler_mismatch(old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Compute |log pi_old(a_t | s_t) - log mu(a_t | s_t)|, [B, T] (nats), 0 outside the mask.

    Args:
        old_logprobs: log pi_old of the sampled tokens, computed by the scorer before any update, [B, T].
        sampler_logprobs: log mu of the same tokens, reported by the sampler, [B, T].
        mask: [B, T] bool.
    """
    return zero_outside(old_logprobs - sampler_logprobs, mask).abs()


def truncated_importance(old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Compute w_t = min(pi_old(a_t | s_t) / mu(a_t | s_t), C), the weight of an action's policy loss; 1 outside the mask.

    Except for the few weights capped at C, the expectation of w_t times a term under mu equals that of the term under pi_old.
    Without the cap, one improbable token could dominate a batch.

    Source: truncated importance sampling (Ionides 2008), applied to sampler and learner as in "Your Efficient RL Framework
    Secretly Brings You Off-Policy RL Training" (Yao et al. 2025).

    Args:
        old_logprobs: log pi_old, [B, T], constant.
        sampler_logprobs: log mu, [B, T], constant.
        mask: [B, T] bool.
        cap: C, positive.
    """
    weights = zero_outside(old_logprobs - sampler_logprobs, mask).exp().clamp(max=cap)
    return torch.where(mask, weights, torch.ones_like(weights))

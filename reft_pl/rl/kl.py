"""Estimators of KL(policy || other) from sampled tokens (Schulman 2020, "Approximating KL divergence")."""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_sum, zero_outside


def k1_kl(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Compute k1_t = log pi(a_t | s_t) - log other(a_t | s_t): unbiased, positive or negative.

    Args:
        logprobs: log pi of the sampled tokens, [B, T] (nats).
        other_logprobs: log other of the same tokens, [B, T] (nats).
        mask: [B, T] bool.

    Returns:
        [B, T], 0 outside the mask.
    """
    return zero_outside(logprobs - other_logprobs, mask)


def k2_kl(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Compute k2_t = (log pi(a_t | s_t) - log other(a_t | s_t))^2 / 2: biased, low variance, never negative.

    Arguments and result as for ``k1_kl``.
    """
    return 0.5 * k1_kl(logprobs, other_logprobs, mask).square()


def k3_kl(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Compute k3_t = rho_t - 1 - log rho_t with rho_t = other(a_t | s_t) / pi(a_t | s_t): unbiased, never negative.

    Arguments and result as for ``k1_kl``.
    """
    log_rho = -k1_kl(logprobs, other_logprobs, mask)
    return torch.expm1(log_rho) - log_rho


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, action_mask: Tensor) -> Tensor:
    """Compute sum_t k1_t of every sequence, [B] (nats per sequence); its mean estimates the KL of whole responses."""
    return masked_sum(logprobs - ref_logprobs, action_mask, dim=-1)

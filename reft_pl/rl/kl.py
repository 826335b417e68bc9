"""Estimates of KL(policy || other) from the tokens that the policy chose (Schulman 2020, "Approximating KL divergence")."""

from __future__ import annotations

import torch
from torch import Tensor

from reft_pl.rl.masks import masked_sum, zero_outside


def k1_kl(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    """k1_t = log pi(a_t | s_t) - log other(a_t | s_t): unbiased, of either sign.

    Args:
        logprobs: log pi of the chosen tokens, [B, T], nats.
        other_logprobs: log other of the same tokens, [B, T].
        mask: [B, T] bool.

    Returns:
        [B, T], 0 outside the mask.
    """
    return zero_outside(logprobs - other_logprobs, mask)


def k3_kl(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    """k3_t = rho_t - 1 - log rho_t with rho_t = other(a_t | s_t) / pi(a_t | s_t): unbiased, never negative.

    Arguments and result as for ``k1_kl``.
    """
    log_rho = -k1_kl(logprobs, other_logprobs, mask)
    return torch.expm1(log_rho) - log_rho


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, action_mask: Tensor) -> Tensor:
    """sum_t k1_t of every sequence, [B] (nats a sequence). Its mean over sequences estimates the KL of whole responses."""
    return masked_sum(logprobs - ref_logprobs, action_mask, dim=-1)


def kl_penalised_rewards(
    outcome: Tensor, logprobs: Tensor, ref_logprobs: Tensor, action_mask: Tensor, kl_coef: float
) -> Tensor:
    """r_t = outcome * [t = last action] - kl_coef * (log pi_old(a_t | s_t) - log pi_ref(a_t | s_t)).

    Args:
        outcome: what the reward function gave each sequence, [B].
        logprobs: log pi_old of the chosen tokens, [B, T].
        ref_logprobs: the same under the frozen reference, [B, T].
        action_mask: [B, T] bool. A row without actions gets no reward.
        kl_coef: weight of the penalty, per nat.

    Returns:
        [B, T], 0 outside the mask, without gradient.

    Raises:
        ValueError: if ``outcome`` is not [B].
    """
    if outcome.shape != logprobs.shape[:1]:
        raise ValueError(f"expected one outcome a sequence, shape {tuple(logprobs.shape[:1])}, got {tuple(outcome.shape)}")
    t = torch.arange(logprobs.shape[1], device=logprobs.device)
    last_t = torch.where(action_mask, t, -1).amax(dim=-1, keepdim=True)
    outcome_bt = torch.where(t == last_t, outcome.to(logprobs.dtype).unsqueeze(-1), 0.0)
    return (outcome_bt - kl_coef * k1_kl(logprobs, ref_logprobs, action_mask)).detach()

"""Estimators of KL(policy || other) from sampled tokens (Schulman 2020, "Approximating KL divergence"), and the KL penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reft_pl.errors import UserError
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


@dataclass(frozen=True)
class KLPenalty:
    """The penalty that keeps the policy near the reference.

    In the reward, the penalty of an action reaches all earlier actions through the advantage. In the loss, it is differentiated
    directly. The expected gradient of k2 is the gradient of the KL. The expected gradient of k1 is 0 on the policy's own
    samples, so k1 in the loss has no effect.

    Args:
        coef: Coefficient per nat (paper: 0.01 for programs, 0.05 for natural language); the initial one if ``target`` is set.
        estimator: k1, k2 or k3 of the log-ratio ("Approximating KL divergence", Schulman 2020).
        place: In the reward of every action (as in the paper), or in the loss.
        target: Target KL in nats per response, towards which the coefficient adapts; None keeps the coefficient fixed.
        gain: The coefficient changes by at most a factor of 1 +- 0.2 * gain per iteration (arXiv 1909.08593, section 2.2).
    """

    coef: float = 0.01
    estimator: Literal["k1", "k2", "k3"] = "k1"
    place: Literal["reward", "loss"] = "reward"
    target: float | None = None
    gain: float = 0.1

    def __post_init__(self) -> None:
        if self.coef < 0 or self.gain < 0 or (self.target is not None and self.target <= 0):
            raise UserError(
                f"coef and gain must not be negative and target must be positive, got {self.coef}, {self.gain} and "
                f"{self.target}: check model.kl"
            )

    def estimate(self, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
        """Estimate the KL at every action, [B, T] (nats), 0 outside the mask; differentiable with respect to ``logprobs``."""
        return {"k1": k1_kl, "k2": k2_kl, "k3": k3_kl}[self.estimator](logprobs, ref_logprobs, mask)

    def rewards(self, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, coef: float) -> Tensor:
        """Return -coef * estimate, [B, T], without gradient; 0 if the penalty is in the loss."""
        if self.place == "loss":
            return torch.zeros_like(logprobs)
        return -coef * self.estimate(logprobs, ref_logprobs, mask).detach()

    def adapted(self, coef: float, kl: float) -> float:
        """Return the next coefficient, coef * (1 + gain * clip(kl / target - 1, -0.2, 0.2)) (arXiv 1909.08593, section 2.2).

        Args:
            coef: The current coefficient.
            kl: Mean KL of the rollout that used it, over all ranks, nats per response.
        """
        if self.target is None:
            return coef
        return coef * (1 + self.gain * min(max(kl / self.target - 1, -0.2), 0.2))

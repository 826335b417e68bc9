"""The price of moving away from the reference policy: how it is estimated, where it is paid, how its weight moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.kl import k1_kl, k2_kl, k3_kl


@dataclass(frozen=True)
class KLPenalty:
    """How the policy is kept near its reference.

    In the reward, a penalty reaches all actions before it through the advantage. In the loss its gradient is taken directly:
    that of k2 is, in expectation, the gradient of the KL; that of k1 is 0 on the policy's own samples: it does nothing there.

    Args:
        coef: Weight, per nat (paper: 0.01 for programs, 0.05 for natural language); at the start, where it adapts.
        estimator: k1, k2 or k3 of the log-ratio ("Approximating KL divergence", Schulman 2020).
        place: In the reward of every action (the paper), or in the loss.
        target: KL in nats a response that the weight is steered to; None keeps it fixed.
        gain: Largest relative change of the weight an iteration is 0.2 * gain (arXiv 1909.08593, section 2.2).
    """

    coef: float = 0.01
    estimator: Literal["k1", "k2", "k3"] = "k1"
    place: Literal["reward", "loss"] = "reward"
    target: float | None = None
    gain: float = 0.1

    def __post_init__(self) -> None:
        if self.coef < 0 or self.gain < 0 or (self.target is not None and self.target <= 0):
            raise UserError("coef and gain must be at least 0, and target positive: check model.kl")

    def estimate(self, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
        """The estimate at every action, [B, T] (nats), 0 outside the mask; with gradient where ``logprobs`` has one."""
        return {"k1": k1_kl, "k2": k2_kl, "k3": k3_kl}[self.estimator](logprobs, ref_logprobs, mask)

    def rewards(self, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, coef: float) -> Tensor:
        """-coef * estimate, [B, T], where the penalty is paid in the reward; 0 where it is not. Without gradient."""
        if self.place == "loss":
            return torch.zeros_like(logprobs)
        return -coef * self.estimate(logprobs, ref_logprobs, mask).detach()

    def adapted(self, coef: float, kl: float) -> float:
        """The next weight: coef * (1 + gain * clip(kl / target - 1, -0.2, 0.2)) (arXiv 1909.08593, section 2.2).

        Args:
            coef: The weight now.
            kl: Mean KL of the rollout that was paid for with it, nats a response, over all ranks.
        """
        if self.target is None:
            return coef
        return coef * (1 + self.gain * min(max(kl / self.target - 1, -0.2), 0.2))

"""What is made of the ratio and the advantage of every action: the policy losses that PPO can be given by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.losses import clipped_ratio_loss, policy_ratio, sequence_ratio


class PolicyLoss(ABC):
    """The loss of every action; named in a config by class path (``--model.policy_loss my_file.MyLoss``).

    Whatever it returns for a row may depend on that row alone, so that results do not depend on micro-batches and ranks.
    """

    def ratio(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
        """rho_t = pi(a_t | s_t) / pi_old(a_t | s_t), [B, T], with gradient; 1 outside the mask."""
        return policy_ratio(logprobs, old_logprobs, mask)

    @abstractmethod
    def per_action(self, ratio: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """The loss of every action, [B, T], 0 outside the mask; ``ratio`` with gradient, ``advantages`` constant."""

    def outside(self, ratio: Tensor) -> Tensor:
        """Where the ratio lies outside what the loss allows, [B, T] bool; logged as the clip fraction."""
        return torch.zeros_like(ratio, dtype=torch.bool)


class PPOClip(PolicyLoss):
    """PPO's clipped surrogate (arXiv 1707.06347, eq. 7), with the two amendments that came after it.

    Args:
        clip_range: The ratio counts down to 1 - clip_range and up to 1 + clip_range.
        clip_higher: Another bound above, 1 + clip_higher, so that rare tokens may become likelier (DAPO, arXiv 2503.14476,
            section 3.1); None is clip_range.
        dual_clip: Bound c > 1 on what a negative advantage costs, -c * A (arXiv 1912.09729, eq. 5); None is none.
    """

    def __init__(self, clip_range: float = 0.2, clip_higher: float | None = None, dual_clip: float | None = None) -> None:
        higher = clip_range if clip_higher is None else clip_higher
        if min(clip_range, higher) <= 0 or (dual_clip is not None and dual_clip <= 1):
            raise UserError("clip ranges must be positive, and dual_clip above 1: check model.policy_loss")
        self.low, self.high, self.dual_clip = 1 - clip_range, 1 + higher, dual_clip

    def per_action(self, ratio: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """``clipped_ratio_loss``."""
        return clipped_ratio_loss(ratio, advantages, mask, self.low, self.high, self.dual_clip)

    def outside(self, ratio: Tensor) -> Tensor:
        """Whether it is below the lower bound or above the upper."""
        return (ratio < self.low) | (ratio > self.high)


class SequenceClip(PPOClip):
    """One ratio a response, the geometric mean of its actions' (GSPO, arXiv 2507.18071, eq. 5 to 7), clipped likewise.

    Its spread is much narrower than a single action's: the paper clips at 3e-4 and 4e-4.
    """

    def __init__(self, clip_range: float = 3e-4, clip_higher: float | None = 4e-4, dual_clip: float | None = None) -> None:
        super().__init__(clip_range, clip_higher, dual_clip)

    def ratio(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
        """The row's ratio at each of its actions, [B, T]; 1 outside the mask."""
        return sequence_ratio(logprobs, old_logprobs, mask)

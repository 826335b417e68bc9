"""Policy losses for PPO: the clipped surrogate per action, and GSPO's per sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.losses import clipped_ratio_loss, policy_ratio, sequence_ratio


class PolicyLoss(ABC):
    """Base class of policy losses; a config selects one by class path (``--model.policy_loss my_file.MyLoss``).

    The loss of a row may depend on that row only, so that results do not depend on micro-batches and ranks.
    """

    def ratio(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
        """Compute rho_t = pi(a_t | s_t) / pi_old(a_t | s_t), [B, T], with gradient; 1 outside the mask."""
        return policy_ratio(logprobs, old_logprobs, mask)

    @abstractmethod
    def per_action(self, ratio: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss of every action, [B, T], 0 outside the mask; ``ratio`` has gradient, ``advantages`` are constant."""

    def outside(self, ratio: Tensor) -> Tensor:
        """Return where the ratio is outside the clip range, [B, T] bool; the logged clip fraction is its mean over actions."""
        return torch.zeros_like(ratio, dtype=torch.bool)


class PPOClip(PolicyLoss):
    """PPO's clipped surrogate (arXiv 1707.06347, eq. 7), with optional clip-higher and dual clip.

    Args:
        clip_range: The ratio is clipped to [1 - clip_range, 1 + clip_range].
        clip_higher: Separate upper bound 1 + clip_higher, which lets rare tokens become more likely (DAPO, arXiv 2503.14476,
            section 3.1). None: clip_range.
        dual_clip: c > 1; bounds the loss of an action with negative advantage A at -c * A (arXiv 1912.09729, eq. 5). None: no
            bound.
    """

    def __init__(self, clip_range: float = 0.2, clip_higher: float | None = None, dual_clip: float | None = None) -> None:
        higher = clip_range if clip_higher is None else clip_higher
        if min(clip_range, higher) <= 0 or (dual_clip is not None and dual_clip <= 1):
            raise UserError(
                f"clip ranges must be positive and dual_clip above 1, got clip_range {clip_range}, clip_higher {clip_higher} "
                f"and dual_clip {dual_clip}: check model.policy_loss"
            )
        self.low, self.high, self.dual_clip = 1 - clip_range, 1 + higher, dual_clip

    def per_action(self, ratio: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """Apply ``clipped_ratio_loss`` with the bounds of this loss."""
        return clipped_ratio_loss(ratio, advantages, mask, self.low, self.high, self.dual_clip)

    def outside(self, ratio: Tensor) -> Tensor:
        """Return where the ratio is below the lower or above the upper bound, [B, T] bool."""
        return (ratio < self.low) | (ratio > self.high)


class SequenceClip(PPOClip):
    """The clipped surrogate with one ratio per response, the geometric mean over its actions (GSPO, arXiv 2507.18071, eq. 5-7).

    This ratio varies much less than that of a single action, so the paper clips at 3e-4 and 4e-4.
    """

    def __init__(self, clip_range: float = 3e-4, clip_higher: float | None = 4e-4, dual_clip: float | None = None) -> None:
        super().__init__(clip_range, clip_higher, dual_clip)

    def ratio(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
        """Repeat the ratio of a row at each of its actions, [B, T]; 1 outside the mask."""
        return sequence_ratio(logprobs, old_logprobs, mask)

"""From what samples earned to the advantage of every action: the estimators that PPO can be given by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.advantages import generalized_advantages
from reft_pl.rl.groups import centred_in_group, leave_one_out, normalised_in_group
from reft_pl.rl.masks import at_last_action, masked_sum, zero_outside
from reft_pl.rl.whitening import mean_over_ranks, whiten


@dataclass(frozen=True, slots=True)
class Experience:
    """What an estimator sees of a rollout.

    ``outcome`` [B] is what the reward function gave; ``kl_rewards`` [B, T] the KL penalty as rewards, 0 where it stands in the
    loss; ``values`` [B, T] of the value head, 0 without one; ``mask`` [B, T] bool selects the actions. The rows of a question's
    ``group_size`` samples stand together. ``all_reduce`` sums a tensor over ranks (None: one rank); the groups of a question
    are never divided among them.
    """

    outcome: Tensor
    kl_rewards: Tensor
    values: Tensor
    mask: Tensor
    group_size: int = 1
    all_reduce: Callable[[Tensor], Tensor] | None = None

    @property
    def rewards(self) -> Tensor:
        """r_t = outcome * [t = last action] + kl_rewards_t, [B, T], 0 outside the mask, without gradient."""
        return (at_last_action(self.outcome, self.mask) + zero_outside(self.kl_rewards, self.mask)).detach()

    @property
    def total_kl_rewards(self) -> Tensor:
        """sum_t kl_rewards_t, [B]."""
        return masked_sum(self.kl_rewards, self.mask, dim=-1).detach()


class AdvantageEstimator(ABC):
    """Gives every action its advantage; named in a config by class path (``--model.advantages my_file.MyEstimator``).

    ``uses_values`` says whether a value head is learned beside the policy, ``min_group`` how many samples a question it takes.
    """

    uses_values: ClassVar[bool] = False
    min_group: ClassVar[int] = 1

    @abstractmethod
    def estimate(self, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Advantages [B, T], 0 outside the mask, and what the value head shall learn, [B, T] (None without one)."""


class GAE(AdvantageEstimator):
    """Generalised advantage estimation with a learned value (arXiv 1506.02438): the paper's estimator.

    Args:
        gamma: Discount a token.
        lam: Mixing of n-step estimates; 1 is the whole return less the value.
        whiten: Whiten the advantages over all actions of all ranks.
    """

    uses_values = True

    def __init__(self, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> None:
        if not (0 <= gamma <= 1 and 0 <= lam <= 1):
            raise UserError(f"GAE: gamma is {gamma} and lam {lam}, but both lie between 0 and 1")
        self.gamma = gamma
        self.lam = lam
        self.whiten = whiten

    def estimate(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Advantages, and returns for the value head."""
        mask = experience.mask
        advantages, returns = generalized_advantages(experience.rewards, experience.values, mask, self.gamma, self.lam)
        return whiten(advantages, mask, experience.all_reduce) if self.whiten else advantages, returns


class GRPO(AdvantageEstimator):
    """Outcome less the mean of its question's samples, by their standard deviation (arXiv 2402.03300, section 4.1).

    Without the division it is that of "Dr. GRPO" (arXiv 2503.20783). Give wrong answers no partial reward with it: a group of
    nothing but wrong answers, some of them valid, would be worth as much as one that has a right answer.

    A KL penalty in the reward is centred within the group and never divided: a group whose outcomes are all equal would
    else learn from the penalty alone, blown up by a standard deviation near 0.

    Args:
        normalise: Divide by the standard deviation of the group's outcomes (+ 1e-4).
    """

    min_group = 2

    def __init__(self, normalise: bool = True) -> None:
        self.normalise = normalise

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """One advantage a sample, the same at all of its actions."""
        size = experience.group_size
        outcome = (normalised_in_group if self.normalise else centred_in_group)(experience.outcome, size)
        return per_action(outcome + centred_in_group(experience.total_kl_rewards, size), experience.mask), None


class RLOO(AdvantageEstimator):
    """Total reward less the mean of the question's *other* samples (REINFORCE leave-one-out, arXiv 2402.14740, eq. 8)."""

    min_group = 2

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """One advantage a sample, the same at all of its actions."""
        return per_action(
            leave_one_out(experience.outcome + experience.total_kl_rewards, experience.group_size), experience.mask
        ), None


class Reinforce(AdvantageEstimator):
    """Total reward less its mean over the rollout of all ranks (Williams 1992, section 5: a reinforcement baseline).

    Args:
        whiten: Whiten over all actions of all ranks too, as REINFORCE++ does (arXiv 2501.03262, section 3).
    """

    def __init__(self, whiten: bool = False) -> None:
        self.whiten = whiten

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """One advantage a sample, the same at all of its actions."""
        total = experience.outcome + experience.total_kl_rewards
        every = torch.ones_like(total, dtype=torch.bool)  # samples that are masked out too: their outcomes count
        advantages = per_action(total - mean_over_ranks(total, every, experience.all_reduce), experience.mask)
        return whiten(advantages, experience.mask, experience.all_reduce) if self.whiten else advantages, None


def per_action(advantages: Tensor, mask: Tensor) -> Tensor:
    """[B] to [B, T]: every action of a row gets the row's, without gradient."""
    return zero_outside(advantages.detach().unsqueeze(-1).expand(mask.shape), mask)

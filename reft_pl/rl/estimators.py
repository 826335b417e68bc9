"""Advantage estimators for PPO: GAE, GRPO, MaxRL, RLOO and REINFORCE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rl.advantages import generalized_advantages, rewards_to_go
from reft_pl.rl.aggregation import AggregationKind
from reft_pl.rl.groups import centred_in_group, leave_one_out, normalised_in_group, relative_to_mean
from reft_pl.rl.masks import at_last_action, masked_sum, zero_outside
from reft_pl.rl.statistics import mean_over_ranks, whiten


@dataclass(frozen=True, slots=True)
class Experience:
    """The inputs of an estimator.

    Attributes:
        outcome: Reward of each sample, [B].
        kl_rewards: KL penalty as a reward for every action, [B, T]; 0 if the penalty is in the loss.
        values: Output of the value head, [B, T]; 0 without one.
        mask: Actions, [B, T] bool.
        group_size: Samples per question. Their rows are adjacent and on the same rank.
        all_reduce: Returns the sum of a tensor over ranks. None: one rank.
        judged: [B] bool, false if no interpreter could judge the sample's program; its outcome then enters no baseline.
            None: all samples were judged.
    """

    outcome: Tensor
    kl_rewards: Tensor
    values: Tensor
    mask: Tensor
    group_size: int = 1
    all_reduce: Callable[[Tensor], Tensor] | None = None
    judged: Tensor | None = None

    @property
    def rewards(self) -> Tensor:
        """Return r_t = outcome * [t = last action] + kl_rewards_t, [B, T], 0 outside the mask, without gradient."""
        return (at_last_action(self.outcome, self.mask) + zero_outside(self.kl_rewards, self.mask)).detach()

    @property
    def total_kl_rewards(self) -> Tensor:
        """Return sum_t kl_rewards_t, [B], without gradient."""
        return masked_sum(self.kl_rewards, self.mask, dim=-1).detach()


class AdvantageEstimator(ABC):
    """Base class of estimators; a config selects one by class path (``--model.advantages my_file.MyEstimator``).

    Attributes:
        uses_values: Whether the estimator needs a value head, which is then trained with the policy.
        min_group: Minimum number of samples per question.
        aggregation: How the estimator's paper averages per-action losses; ``model.aggregation`` overrides it.
    """

    uses_values: ClassVar[bool] = False
    min_group: int = 1
    aggregation: AggregationKind = "sequence"

    @abstractmethod
    def estimate(self, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Return the advantages, [B, T], 0 outside the mask, and the targets of the value head, [B, T] (None without one)."""

    def warmup_targets(self, experience: Experience) -> Tensor | None:
        """Return targets for training the value head while the policy is frozen, [B, T] (None without a value head)."""
        return self.estimate(experience)[1]


class GAE(AdvantageEstimator):
    """Generalised advantage estimation with a learned value function (arXiv 1506.02438), as in the ReFT paper.

    Args:
        gamma: Discount per token.
        lam: Weight of longer n-step estimates; 1 gives the full return minus the value.
        whiten: Whiten the advantages over all actions of all ranks.
    """

    uses_values = True

    def __init__(self, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> None:
        if not (0 <= gamma <= 1 and 0 <= lam <= 1):
            raise UserError(f"gamma and lam must be between 0 and 1, got {gamma} and {lam}: check model.advantages (GAE)")
        self.gamma = gamma
        self.lam = lam
        self.whiten = whiten

    def estimate(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Return the advantages, and the returns as targets of the value head."""
        mask = experience.mask
        advantages, returns = generalized_advantages(experience.rewards, experience.values, mask, self.gamma, self.lam)
        return whiten(advantages, mask, experience.all_reduce) if self.whiten else advantages, returns

    def warmup_targets(self, experience: Experience) -> Tensor:
        """Return Monte Carlo returns (lambda = 1), which do not depend on the untrained values.

        Source: value pretraining of VC-PPO, arXiv 2503.01491, section 4.1.
        """
        return generalized_advantages(experience.rewards, experience.values, experience.mask, self.gamma, 1.0)[1]


class GRPO(AdvantageEstimator):
    """Outcome minus the group mean, divided by the group's standard deviation (arXiv 2402.03300, section 4.1.2).

    A group is the samples of one question. Without the division this is Dr. GRPO (arXiv 2503.20783), which also divides losses
    by a constant. Set the partial reward to 0: otherwise a group of wrong answers, of which some are valid, gets advantages
    as large as a group with a correct answer.

    A KL penalty in the reward is centred within the group but not divided. In a group with equal outcomes, the standard
    deviation is near 0, and dividing by it would amplify the penalty.

    Args:
        normalise: Divide by the standard deviation of the group's outcomes (+ 1e-4).
    """

    min_group = 2

    def __init__(self, normalise: bool = True) -> None:
        self.normalise = normalise
        self.aggregation = "sequence" if normalise else "constant"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """Return one advantage per sample, repeated at each of its actions, [B, T]."""
        size, judged = experience.group_size, experience.judged
        centred = normalised_in_group if self.normalise else centred_in_group
        outcome = centred(experience.outcome, size, counted=judged)
        return per_action(outcome + centred_in_group(experience.total_kl_rewards, size, judged), experience.mask), None


class MaxRL(AdvantageEstimator):
    """Outcome minus the group mean, divided by that mean (maximum-likelihood RL).

    Let p be the probability of a correct answer. For outcomes of 0 and 1 the expected gradient is that of a truncated series of
    log p, whereas RLOO's is that of p. Questions that the policy rarely solves therefore have more weight. A group without a
    correct answer gets 0. Set the partial reward to 0 with this estimator.

    A KL penalty in the reward is centred within the group but not divided.

    Source: arXiv 2602.02710, algorithm 1. The gradient is of whole responses, so losses are summed over a response.
    """

    min_group = 2
    aggregation = "sequence_sum"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """Return one advantage per sample, repeated at each of its actions, [B, T]."""
        size, judged = experience.group_size, experience.judged
        outcome = relative_to_mean(experience.outcome, size, judged)
        return per_action(outcome + centred_in_group(experience.total_kl_rewards, size, judged), experience.mask), None


class RLOO(AdvantageEstimator):
    """Total reward minus the mean of the question's *other* samples (REINFORCE leave-one-out).

    Source: arXiv 2402.14740, eq. 8. A response is one action; its log-probability is the sum over its tokens.
    """

    min_group = 2
    aggregation = "sequence_sum"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """Return one advantage per sample, repeated at each of its actions, [B, T]."""
        total = experience.outcome + experience.total_kl_rewards
        return per_action(leave_one_out(total, experience.group_size, experience.judged), experience.mask), None


class Reinforce(AdvantageEstimator):
    """Reward-to-go minus a baseline: A_t = outcome + sum_{k >= t} kl_rewards_k - b.

    An action is charged for its own KL and the KL of later actions, but not of earlier ones.

    Source: Williams 1992, section 5. With ``whiten`` this is REINFORCE++ (arXiv 2501.03262, section 3.1); with ``whiten`` and
    the ``group`` baseline it is REINFORCE++ with baseline (section 3.2).

    Args:
        whiten: Whiten over all actions of all ranks, as REINFORCE++ does. Losses are then averaged over actions; otherwise they
            are summed over a response.
        baseline: ``rollout`` is the mean total reward of all samples of all ranks. ``group`` is the mean outcome of the
            question's samples.
    """

    def __init__(self, whiten: bool = False, baseline: Literal["rollout", "group"] = "rollout") -> None:
        self.whiten = whiten
        self.baseline = baseline
        self.min_group = 2 if baseline == "group" else 1
        self.aggregation = "token" if whiten else "sequence_sum"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """Return advantages that differ between the actions of a sample by their KL, [B, T]."""
        outcome, mask, judged, all_reduce = experience.outcome, experience.mask, experience.judged, experience.all_reduce
        # Samples without actions still count in the baseline, unless no interpreter could judge them.
        counted = torch.ones_like(outcome, dtype=torch.bool) if judged is None else judged
        if self.baseline == "group":
            outcome = centred_in_group(outcome, experience.group_size, judged)
        else:
            outcome = outcome - mean_over_ranks(outcome + experience.total_kl_rewards, counted, all_reduce)
        advantages = rewards_to_go(at_last_action(outcome, mask) + zero_outside(experience.kl_rewards, mask), mask)
        return whiten(advantages, mask, all_reduce) if self.whiten else advantages, None


class Distillation(AdvantageEstimator):
    """On-policy distillation: A_t = -coef * (log pi(a_t | s_t) - log teacher(a_t | s_t)) [+ w * (outcome - mean outcome)].

    The first term is the KL penalty in the reward against ``model.teacher``, charged to each action alone. With
    ``model.kl.coef`` 1 its expected gradient is that of the reverse KL at the states that the policy visits. The mean is over
    the judged samples of all ranks.

    Source: GKD, arXiv 2306.13649, section 3.1, with the reverse KL and samples of the student.

    Args:
        reward_weight: w; 0 learns from the teacher alone.
    """

    aggregation = "token"

    def __init__(self, reward_weight: float = 0.0) -> None:
        if reward_weight < 0:
            raise UserError(f"reward_weight must be at least 0, got {reward_weight}: check model.advantages (Distillation)")
        self.reward_weight = reward_weight

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """Return one advantage per action, [B, T]."""
        outcome, judged = experience.outcome, experience.judged
        counted = torch.ones_like(outcome, dtype=torch.bool) if judged is None else judged
        centred = torch.where(counted, outcome - mean_over_ranks(outcome, counted, experience.all_reduce), 0.0)
        advantages = zero_outside(experience.kl_rewards, experience.mask).detach()
        return advantages + per_action(self.reward_weight * centred, experience.mask), None


def per_action(advantages: Tensor, mask: Tensor) -> Tensor:
    """Give every action the advantage of its row: [B] to [B, T], 0 outside the mask, without gradient."""
    return zero_outside(advantages.detach().unsqueeze(-1).expand(mask.shape), mask)

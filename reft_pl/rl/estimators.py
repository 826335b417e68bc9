"""From what samples earned to the advantage of every action: the estimators that PPO can be given by name."""

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
from reft_pl.rl.whitening import mean_over_ranks, whiten


@dataclass(frozen=True, slots=True)
class Experience:
    """What an estimator sees of a rollout.

    ``outcome`` [B] is what the reward function returned; ``kl_rewards`` [B, T] the KL penalty as rewards, 0 if it is in the
    loss; ``values`` [B, T] of the value head, 0 without one; ``mask`` [B, T] bool selects the actions. The rows of a question's
    ``group_size`` samples are adjacent. ``all_reduce`` sums a tensor over ranks (None: one rank); the groups of a question
    are never divided among them. ``judged`` [B] bool is false for samples whose program nothing could judge: their outcome
    enters no baseline (None: all were judged).
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
        """r_t = outcome * [t = last action] + kl_rewards_t, [B, T], 0 outside the mask, without gradient."""
        return (at_last_action(self.outcome, self.mask) + zero_outside(self.kl_rewards, self.mask)).detach()

    @property
    def total_kl_rewards(self) -> Tensor:
        """sum_t kl_rewards_t, [B]."""
        return masked_sum(self.kl_rewards, self.mask, dim=-1).detach()


class AdvantageEstimator(ABC):
    """Gives every action its advantage; named in a config by class path (``--model.advantages my_file.MyEstimator``).

    ``uses_values`` says whether a value head is learned beside the policy, ``min_group`` how many samples a question it takes,
    and ``aggregation`` how the source of the estimator averages the losses of actions (``model.aggregation`` overrides it).
    """

    uses_values: ClassVar[bool] = False
    min_group: int = 1
    aggregation: AggregationKind = "sequence"

    @abstractmethod
    def estimate(self, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Advantages [B, T], 0 outside the mask, and the value head's targets, [B, T] (None without one)."""

    def warmup_targets(self, experience: Experience) -> Tensor | None:
        """Targets of a value head that is trained while the policy is fixed, [B, T]."""
        return self.estimate(experience)[1]


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

    def warmup_targets(self, experience: Experience) -> Tensor:
        """Monte Carlo returns, lambda = 1: they do not depend on values that nobody has trained yet.

        Source: value pretraining of VC-PPO, arXiv 2503.01491, section 4.1.
        """
        return generalized_advantages(experience.rewards, experience.values, experience.mask, self.gamma, 1.0)[1]


class GRPO(AdvantageEstimator):
    """Outcome less the mean of its question's samples, by their standard deviation (arXiv 2402.03300, section 4.1.2).

    Without the division it is that of "Dr. GRPO" (arXiv 2503.20783), which also divides losses by a constant. Give wrong
    answers no partial reward with it: a group of nothing but wrong answers, some of them valid, would be worth as much as one
    that has a right answer.

    A KL penalty in the reward is centred within the group and never divided: a group whose outcomes are all equal would
    else learn from the penalty alone, blown up by a standard deviation near 0.

    Args:
        normalise: Divide by the standard deviation of the group's outcomes (+ 1e-4).
    """

    min_group = 2

    def __init__(self, normalise: bool = True) -> None:
        self.normalise = normalise
        self.aggregation = "sequence" if normalise else "constant"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """One advantage a sample, the same at all of its actions."""
        size, judged = experience.group_size, experience.judged
        centred = normalised_in_group if self.normalise else centred_in_group
        outcome = centred(experience.outcome, size, counted=judged)
        return per_action(outcome + centred_in_group(experience.total_kl_rewards, size, judged), experience.mask), None


class MaxRL(AdvantageEstimator):
    """Outcome less the mean of its question's samples, divided by that mean (maximum likelihood RL).

    For outcomes of 0 and 1 the expected gradient is that of a truncated series of log p, p the probability of a right answer,
    while RLOO's is that of p: questions that the policy rarely solves weigh more. A group without any right answer gets 0.
    Give wrong answers no partial reward with it.

    A KL penalty in the reward is centred within the group and never divided.

    Source: arXiv 2602.02710, algorithm 1. Its gradient is of whole responses, so losses are summed over a response.
    """

    min_group = 2
    aggregation = "sequence_sum"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """One advantage a sample, the same at all of its actions."""
        size, judged = experience.group_size, experience.judged
        outcome = relative_to_mean(experience.outcome, size, judged)
        return per_action(outcome + centred_in_group(experience.total_kl_rewards, size, judged), experience.mask), None


class RLOO(AdvantageEstimator):
    """Total reward less the mean of the question's *other* samples (REINFORCE leave-one-out).

    Source: arXiv 2402.14740, eq. 8. A response is one action, whose log-probability is the sum over its tokens.
    """

    min_group = 2
    aggregation = "sequence_sum"

    def estimate(self, experience: Experience) -> tuple[Tensor, None]:
        """One advantage a sample, the same at all of its actions."""
        total = experience.outcome + experience.total_kl_rewards
        return per_action(leave_one_out(total, experience.group_size, experience.judged), experience.mask), None


class Reinforce(AdvantageEstimator):
    """Reward-to-go less a baseline: A_t = outcome + sum_{k >= t} kl_rewards_k - b.

    An action pays for its own KL and for that of the actions after it, not for the actions before it.

    Source: Williams 1992, section 5; with ``whiten`` REINFORCE++ (arXiv 2501.03262, section 3.1), with both settings
    REINFORCE++ with baseline (section 3.2).

    Args:
        whiten: Whiten over all actions of all ranks, as REINFORCE++ does. Losses are then averaged over actions; without, they
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
        """Advantages of a sample, which differ between its actions by their KL."""
        outcome, mask, judged, all_reduce = experience.outcome, experience.mask, experience.judged, experience.all_reduce
        # Samples that are masked out count too, unless nothing could judge them.
        counted = torch.ones_like(outcome, dtype=torch.bool) if judged is None else judged
        if self.baseline == "group":
            outcome = centred_in_group(outcome, experience.group_size, judged)
        else:
            outcome = outcome - mean_over_ranks(outcome + experience.total_kl_rewards, counted, all_reduce)
        advantages = rewards_to_go(at_last_action(outcome, mask) + zero_outside(experience.kl_rewards, mask), mask)
        return whiten(advantages, mask, all_reduce) if self.whiten else advantages, None


def per_action(advantages: Tensor, mask: Tensor) -> Tensor:
    """[B] to [B, T]: every action of a row gets the row's, without gradient."""
    return zero_outside(advantages.detach().unsqueeze(-1).expand(mask.shape), mask)

"""Statistics that a PPO iteration logs, by TensorBoard name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from reft_pl.modules.sample_statistics import sample_statistics
from reft_pl.rl.importance import sampler_mismatch, truncated_importance
from reft_pl.rl.kl import k3_kl, sequence_kl
from reft_pl.rl.masks import masked_max, masked_sum
from reft_pl.rl.policy_losses import PolicyLoss
from reft_pl.rl.statistics import explained_variance
from reft_pl.strategies.ranks import Part, Ranks
from reft_pl.types import ScoredRollout


def rollout_statistics(rollout: ScoredRollout, ranks: Ranks, importance_clip: float | None = None) -> dict[str, float]:
    """Compute statistics of the samples of all ranks, and of the scores of those in the update.

    To ``sample_statistics`` it adds the KL to the reference and the entropy (nats), and the mean and maximum difference
    between sampler and scorer over actions (nats). With ``importance_clip`` it adds the mean importance weight and the share
    of actions with a truncated weight.
    """
    mask = rollout.tokens.action_mask
    kl = sequence_kl(rollout.logprobs, rollout.ref_logprobs, mask)
    mismatch = sampler_mismatch(rollout.logprobs, rollout.sampler_logprobs, mask)
    statistics: dict[str, Part] = {
        **sample_statistics(rollout),
        "rollout/kl": (float(masked_sum(kl, mask.any(dim=-1))), int(mask.any(dim=-1).sum())),
        "rollout/entropy": (float(masked_sum(rollout.entropy, mask)), int(mask.sum())),
        "rollout/sampler_mismatch": (float(masked_sum(mismatch, mask)), int(mask.sum())),
    }
    if importance_clip is not None:
        weights = truncated_importance(rollout.logprobs, rollout.sampler_logprobs, mask, importance_clip)
        cut = (weights >= importance_clip).float()
        statistics["rollout/importance"] = (float(masked_sum(weights, mask)), int(mask.sum()))
        statistics["rollout/importance_cut"] = (float(masked_sum(cut, mask)), int(mask.sum()))
    largest = max(ranks.gather(float(masked_max(mismatch, mask))))
    return ranks.means(statistics) | {"rollout/sampler_mismatch_max": largest}


class UpdateStatistics:
    """Accumulate statistics over the micro-batches and optimizer steps of one iteration."""

    def __init__(self, policy_loss: PolicyLoss) -> None:
        self.policy_loss = policy_loss
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.terms: dict[str, float] = {}
        self.ratio_max = 0.0
        self.actions = 0
        self.steps = 0

    def add_micro_batch(
        self, terms: Mapping[str, Tensor], ratio: Tensor, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor
    ) -> None:
        """Add a micro-batch: its part of each loss term (scalars), ratios and log-probabilities ([B, T])."""
        with torch.no_grad():
            for name, term in terms.items():
                self.add_term(name, term)
            self.sums["ratio"] += float(masked_sum(ratio, mask))
            self.sums["clip_fraction"] += float((self.policy_loss.outside(ratio) & mask).sum())
            self.sums["approx_kl"] += float(k3_kl(old_logprobs, logprobs, mask).sum())
            self.ratio_max = max(self.ratio_max, float(masked_max(ratio, mask)))
            self.actions += int(mask.sum())

    def add_term(self, name: str, term: Tensor) -> None:
        """Add a micro-batch's part of a loss term (scalar)."""
        self.terms[name] = self.terms.get(name, 0.0) + float(term.detach())

    def watched(self, name: str, losses: Sequence[Callable[[], Tensor]]) -> list[Callable[[], Tensor]]:
        """Wrap the micro-batch losses of a single term, so that each is recorded when it is computed."""

        def watch(compute: Callable[[], Tensor]) -> Tensor:
            term = compute()
            self.add_term(name, term)
            return term

        return [partial(watch, compute) for compute in losses]

    def add_step(self, result: Mapping[str, float]) -> None:
        """Add the result of ``StageModule.update``."""
        self.steps += 1
        for name, value in result.items():
            self.sums[name] += value

    def compute(self, rollout: ScoredRollout, returns: Tensor | None, ranks: Ranks) -> dict[str, float]:
        """Average over all ranks: weighted losses and gradient norm over steps, ratios over actions.

        Each rank scales its losses so that their mean over ranks is the mean over all actions.
        """
        steps = max(1, self.steps)
        figures = ranks.averages({f"{name}_loss": term / steps for name, term in self.terms.items()})
        figures |= {name: self.sums[name] / steps for name in ("loss", "gradient_norm")}
        figures |= ranks.means({name: (self.sums[name], self.actions) for name in ("ratio", "clip_fraction", "approx_kl")})
        figures |= {"ratio_max": max(ranks.gather(self.ratio_max)), "skipped": self.sums["skipped"]}
        if returns is not None:
            mask = rollout.tokens.action_mask
            figures["explained_variance"] = float(explained_variance(rollout.values, returns, mask, ranks.sum))
        return {f"update/{name}": value for name, value in figures.items()}

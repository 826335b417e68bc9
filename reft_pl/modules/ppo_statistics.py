"""The figures that a PPO iteration logs, by their TensorBoard names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from reft_pl.modules.sample_statistics import sample_statistics
from reft_pl.rl.diagnostics import clip_fraction, explained_variance
from reft_pl.rl.kl import k3_kl, sequence_kl
from reft_pl.rl.losses import policy_ratio
from reft_pl.rl.masks import masked_max, masked_mean, masked_sum
from reft_pl.types import ScoredRollout


def rollout_statistics(rollout: ScoredRollout) -> dict[str, float]:
    """What the policy wrote, and how it feels about it: ``sample_statistics``, KL to the reference, entropy (nats)."""
    mask = rollout.tokens.action_mask
    return {
        **sample_statistics(rollout),
        "rollout/kl": float(sequence_kl(rollout.logprobs, rollout.ref_logprobs, mask).mean()),
        "rollout/entropy": float(masked_mean(rollout.entropy, mask)),
    }


class UpdateStatistics:
    """Sums over the micro-batches and optimizer steps of one iteration."""

    def __init__(self, clip_range: float) -> None:
        self.clip_range = clip_range
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.ratio_max = 0.0
        self.actions = 0
        self.steps = 0

    def add_micro_batch(
        self, policy_loss: Tensor, value_loss: Tensor, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor
    ) -> None:
        """Add a micro-batch: its share of the two losses (scalars) and its actions' log-probabilities ([B, T])."""
        with torch.no_grad():
            ratio = policy_ratio(logprobs, old_logprobs, mask)
            self.sums["policy_loss"] += float(policy_loss)
            self.sums["value_loss"] += float(value_loss)
            self.sums["ratio"] += float(masked_sum(ratio, mask))
            self.sums["clip_fraction"] += float(clip_fraction(ratio, mask, self.clip_range, 1))
            self.sums["approx_kl"] += float(k3_kl(old_logprobs, logprobs, mask).sum())
            self.ratio_max = max(self.ratio_max, float(masked_max(ratio, mask)))
            self.actions += int(mask.sum())

    def add_step(self, result: Mapping[str, float]) -> None:
        """Add what ``PolicyModule.update`` returned."""
        self.steps += 1
        for name, value in result.items():
            self.sums[name] += value

    def compute(self, rollout: ScoredRollout, returns: Tensor) -> dict[str, float]:
        """Losses and gradient norm as means over steps, ratios as means over actions, skipped steps as a count."""
        steps, actions = max(1, self.steps), max(1, self.actions)
        per_step = {name: self.sums[name] / steps for name in ("loss", "policy_loss", "value_loss", "gradient_norm")}
        per_action = {name: self.sums[name] / actions for name in ("ratio", "clip_fraction", "approx_kl")}
        variance = explained_variance(rollout.values, returns, rollout.tokens.action_mask)
        return {
            **{f"update/{name}": value for name, value in (per_step | per_action).items()},
            "update/ratio_max": self.ratio_max,
            "update/explained_variance": float(variance),
            "update/skipped": self.sums["skipped"],
        }

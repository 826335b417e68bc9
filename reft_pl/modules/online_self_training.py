"""Online self-training: supervised learning on the policy's own correct samples and on the annotated solutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reft_pl.errors import UserError
from reft_pl.models.micro_batches import take
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.policy_module import PolicyModule
from reft_pl.modules.sample_statistics import sample_statistics
from reft_pl.modules.stage_module import MicroBatches
from reft_pl.reward.base import Reward
from reft_pl.reward.rewards import Rewards
from reft_pl.rollout.minibatches import minibatches, n_minibatches
from reft_pl.types import Problem, Rollout, SamplingParams

FRESH, ANNOTATED = 0.5, 0.5
"""Weights of the two terms of the loss (paper, section 4.2)."""


class OnlineSelfTrainingModule(PolicyModule):
    """Train on the policy's correct samples and on annotated solutions (the paper's online self-training baseline).

    The loss is ``0.5 * CE(fresh samples with reward exactly 1) + 0.5 * CE(annotated solutions)``, each a mean over tokens.
    A mini-batch without a correct sample has only the second term, not scaled up.

    Args:
        policy: The warmed-up model.
        reward: Reward class or function; None gives 1 for a correct answer, 0.1 for a wrong answer of the right type, else 0.
        inner_epochs: Passes over each rollout.
        minibatch_size: Questions per optimizer step; None is the whole batch.
        samples_per_problem: Completions per question in each rollout.
        temperature: Sampling temperature of rollouts, without top-k and top-p.
        **kwargs: Settings of ``PolicyModule`` and ``StageModule``.
    """

    stage = "online_self_training"

    def __init__(
        self,
        policy: PolicySettings,
        reward: Reward | None = None,
        inner_epochs: int = 2,
        minibatch_size: int | None = None,
        samples_per_problem: int = 1,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, **kwargs)
        if temperature <= 0 or min(inner_epochs, samples_per_problem, 1 if minibatch_size is None else minibatch_size) < 1:
            raise UserError(
                "temperature must be positive, and inner_epochs, samples_per_problem and minibatch_size at least 1: "
                "check model.*"
            )
        self.rewards = Rewards(reward)
        self.reward = self.rewards.single
        self.inner_epochs = inner_epochs
        self.minibatch_size = minibatch_size
        self.samples_per_problem = samples_per_problem
        self.temperature = temperature

    def setup(self, stage: str) -> None:
        """Tokenise the annotated solutions, and fail before training if one is missing."""
        if stage == "fit":
            self.rewards.check(self.problems.train_problems)
            self.problems.prepare_examples()

    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Run one iteration: a rollout on the batch's questions, then ``inner_epochs`` passes of updates."""
        rollout = self.collect(batch)
        self.phases.rollout_end(rollout)
        statistics = self.learn(batch, rollout) | self.ranks.means(sample_statistics(rollout)) | self.timing()
        self.log_statistics(statistics)
        self.phases.update_end(statistics)

    def collect(self, problems: list[Problem]) -> Rollout:
        """Sample, execute and reward ``samples_per_problem`` solutions of each problem."""
        params = SamplingParams(max_new_tokens=self.problems.codec.max_tokens, temperature=self.temperature)
        samples = self.solver.sample(problems, params, self.samples_per_problem)
        return self.solver.collector.reward(self.policy, self.rewards, samples)

    def learn(self, problems: Sequence[Problem], rollout: Rollout) -> dict[str, float]:
        """Run all optimizer steps on one rollout; return means over the steps."""
        step, results = self.trainer.fit_loop.epoch_loop.total_batch_idx, []
        self.train_with_dropout(self.policy, step)
        n = int(self.ranks.total(len(problems)))
        parts, places = n_minibatches(n, self.minibatch_size), self.ranks.places(len(problems))
        with self.phases.phase("update", self.inner_epochs * len(problems)) as progress:
            for epoch in range(self.inner_epochs):
                for rows in minibatches(torch.tensor(places), n, parts, self.seed, step, epoch):
                    results.append(self.update(self.losses(problems, rollout, rows.tolist())))
                    progress.advance(len(rows))
        names = {"loss": "loss", "gradient_norm": "gradient_norm"}
        means = {f"update/{key}": sum(r[name] for r in results) / len(results) for key, name in names.items()}
        return means | {"update/skipped": sum(r["skipped"] for r in results)}

    def losses(self, problems: Sequence[Problem], rollout: Rollout, rows: Sequence[int]) -> MicroBatches:
        """Build micro-batch losses that sum to the loss of the mini-batch; ``rows`` are this rank's questions in it."""
        n = self.samples_per_problem
        correct = [i for row in rows for i in range(n * row, n * row + n) if rollout.outcome[i] == 1]
        fresh = take(rollout.tokens, torch.tensor(correct, dtype=torch.int64, device=rollout.outcome.device))
        annotated = self.annotated([problems[row] for row in rows])
        return [*self.cross_entropy(fresh, FRESH), *self.cross_entropy(annotated, ANNOTATED)]

    def steps_per_batch(self) -> int:
        """Return the number of optimizer steps per full batch."""
        return self.inner_epochs * n_minibatches(self.problems.batch_size, self.minibatch_size)

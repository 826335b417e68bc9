"""ReFT: PPO on the policy's own executed solutions (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.loading import load_policy
from reft_pl.models.micro_batches import split, take
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.policy_module import PolicyModule
from reft_pl.modules.ppo_statistics import UpdateStatistics, rollout_statistics
from reft_pl.modules.schedule import Schedule
from reft_pl.reward.answer import AnswerReward
from reft_pl.reward.base import RewardFunction
from reft_pl.rl.advantages import generalized_advantages
from reft_pl.rl.kl import kl_penalised_rewards
from reft_pl.rl.losses import clipped_value_loss, policy_ratio, ppo_clip_loss
from reft_pl.rl.masks import sequence_mean
from reft_pl.rl.whitening import whiten
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.minibatches import minibatches, n_minibatches
from reft_pl.sandbox.base import Sandbox
from reft_pl.types import Problem, SamplingParams, ScoredRollout


class PPOModule(PolicyModule):
    """Collect, estimate advantages, update.

    Args:
        policy: The warmed-up model; it is also the frozen reference of the KL penalty.
        optimizer: Makes the optimizer from the parameters.
        schedule: How the learning rate moves.
        reward: Gives each executed sample its outcome; None is 1 for right, 0.1 for a wrong answer of the right kind, else 0.
        kl_coef: Weight of the per-token KL penalty in the reward (paper: 0.01 for programs, 0.05 for natural language).
        gamma: Discount a token.
        lam: GAE's mixing parameter.
        clip_range: PPO's clip of the probability ratio.
        value_clip_range: Clip of the value's change, in units of reward.
        value_coef: Weight of the value loss.
        ppo_epochs: Passes over each rollout.
        minibatch_size: Samples an optimizer step; None is the whole rollout.
        samples_per_problem: Completions a question in each rollout.
        temperature: At which rollouts are sampled and scored; no top-k and no top-p.
        separate_value_model: Give values a trunk of their own instead of a head on the policy's (twice the compute).
        gradient_clip_norm: Global norm to which gradients are clipped.
        micro_batch_tokens: Bound on rows times longest row of what goes through the model at once. It decides memory and,
            but for rounding, not results (``StageModule.update``).
        sampler: Writes completions; None is the in-process sampler.
        sandbox: Runs the programs in them; None is Monty with CPython behind it.
        seed: Run seed, from which every draw of this stage is derived.
    """

    stage = "ppo"

    def __init__(
        self,
        policy: PolicySettings,
        optimizer: OptimizerCallable = MasterAdamW,
        schedule: Schedule = Schedule(),
        reward: RewardFunction | None = None,
        kl_coef: float = 0.01,
        gamma: float = 1.0,
        lam: float = 0.95,
        clip_range: float = 0.2,
        value_clip_range: float = 0.2,
        value_coef: float = 5.0,
        ppo_epochs: int = 2,
        minibatch_size: int | None = None,
        samples_per_problem: int = 1,
        temperature: float = 1.0,
        separate_value_model: bool = False,
        gradient_clip_norm: float = 1.0,
        micro_batch_tokens: int = 4096,
        sampler: Sampler | None = None,
        sandbox: Sandbox | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__(policy, optimizer, schedule, gradient_clip_norm, micro_batch_tokens, sampler, sandbox, seed)
        if temperature <= 0 or not 0 <= gamma <= 1 or not 0 <= lam <= 1 or min(clip_range, value_clip_range) <= 0:
            raise UserError(
                "temperature and clip ranges must be positive, and gamma and lam lie between 0 and 1: check model.*"
            )
        if min(ppo_epochs, samples_per_problem, 1 if minibatch_size is None else minibatch_size) < 1:
            raise UserError("ppo_epochs, samples_per_problem and minibatch_size must be at least 1: check model.*")
        self.reward = reward or AnswerReward()
        self.kl_coef = kl_coef
        self.gamma = gamma
        self.lam = lam
        self.clip_range = clip_range
        self.value_clip_range = value_clip_range
        self.value_coef = value_coef
        self.ppo_epochs = ppo_epochs
        self.minibatch_size = minibatch_size
        self.samples_per_problem = samples_per_problem
        self.temperature = temperature
        self.value_kind: Literal["separate", "shared"] = "separate" if separate_value_model else "shared"

    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """One iteration: a rollout on the batch's questions, then ``ppo_epochs`` passes of updates over it."""
        self.policy.eval()  # no dropout: the ratio at the first update must be 1
        rollout = self.collect(batch)
        self.phases.rollout_end(rollout)
        advantages, returns = self.estimate_advantages(rollout)
        statistics = self.learn(rollout, advantages, returns)
        statistics |= rollout_statistics(rollout) | self.phases.take()
        self.log_statistics(statistics)
        self.phases.update_end(statistics)

    def collect(self, problems: list[Problem]) -> ScoredRollout:
        """Sample, execute, reward and score ``samples_per_problem`` solutions of each problem."""
        params = SamplingParams(max_new_tokens=self.problems.codec.max_tokens, temperature=self.temperature)
        samples = self.sample(problems, params, self.samples_per_problem)
        return self.collector.score(
            self.policy,
            self.reference,
            self.collector.reward(self.policy, self.reward, samples),
            temperature=self.temperature,
            micro_batch_tokens=self.micro_batch_tokens,
        )

    def estimate_advantages(self, rollout: ScoredRollout) -> tuple[Tensor, Tensor]:
        """Whitened advantages and returns of every action, both [B, T]."""
        mask = rollout.tokens.action_mask
        rewards = kl_penalised_rewards(rollout.outcome, rollout.logprobs, rollout.ref_logprobs, mask, self.kl_coef)
        advantages, returns = generalized_advantages(rewards, rollout.values, mask, self.gamma, self.lam)
        return whiten(advantages, mask, self.all_reduce), returns

    def learn(self, rollout: ScoredRollout, advantages: Tensor, returns: Tensor) -> dict[str, float]:
        """All optimizer steps on one rollout."""
        statistics = UpdateStatistics(self.clip_range)
        n, step = len(rollout.samples), self.trainer.fit_loop.epoch_loop.total_batch_idx
        with self.phases.phase("update", self.ppo_epochs * n) as progress:
            for epoch in range(self.ppo_epochs):
                for rows in minibatches(n, self.minibatch_size, self.seed, step, epoch):
                    result = self.update(self.losses(rollout, advantages, returns, rows, statistics))
                    statistics.add_step(result)
                    progress.advance(len(rows), int(rollout.tokens.attention_mask[rows].sum()))
        return statistics.compute(rollout, returns)

    def losses(
        self, rollout: ScoredRollout, advantages: Tensor, returns: Tensor, rows: Tensor, statistics: UpdateStatistics
    ) -> Iterator[Tensor]:
        """Micro-batch losses that sum to the mini-batch's: policy + ``value_coef`` * value, each a mean over sequences."""
        for micro in split(take(rollout.tokens, rows), self.micro_batch_tokens):
            micro_rows = rows[micro]
            tokens = take(rollout.tokens, micro_rows)
            mask, columns = tokens.action_mask, slice(tokens.input_ids.shape[1])
            old_logprobs, old_values = rollout.logprobs[micro_rows, columns], rollout.values[micro_rows, columns]
            scores = score(self.policy, tokens, temperature=self.temperature)
            ratio = policy_ratio(scores.logprobs, old_logprobs, mask)
            policy_loss = ppo_clip_loss(ratio, advantages[micro_rows, columns], mask, self.clip_range)
            value_loss = clipped_value_loss(
                cast("Tensor", scores.values), old_values, returns[micro_rows, columns], mask, self.value_clip_range
            )
            policy_loss, value_loss = (sequence_mean(loss, mask, len(rows)) for loss in (policy_loss, value_loss))
            statistics.add_micro_batch(policy_loss, value_loss, scores.logprobs, old_logprobs, mask)
            yield policy_loss + self.value_coef * value_loss

    # ---- model

    def configure_model(self) -> None:
        """Load the policy with its value head and, to train, the frozen reference."""
        super().configure_model()
        if self.trainer.training and not hasattr(self, "_reference"):
            # In a tuple, so that the module neither trains nor saves it: a checkpoint need not hold what init_from holds.
            self._reference = (load_policy(self.policy_settings, "none", seed=self.seed).requires_grad_(False),)

    @property
    def reference(self) -> Policy:
        """The warm-up policy, frozen, in evaluation mode."""
        return self._reference[0].to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which reference the run has; its weights are those of ``init_from``."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reft_reference"] = fingerprint(self.reference)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on against another reference than the one that the run began with."""
        super().on_load_checkpoint(checkpoint)
        if self.trainer.training and checkpoint["reft_reference"] != fingerprint(self.reference):
            raise UserError(
                f"{self.policy_settings.init_from} is not the model that this run started from any more: bring that one back, "
                f"or start anew in another --run_dir"
            )

    def steps_per_batch(self) -> int:
        """Optimizer steps that a rollout of the full size takes."""
        return self.ppo_epochs * n_minibatches(self.problems.batch_size * self.samples_per_problem, self.minibatch_size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks."""
        return cast("Tensor", self.trainer.strategy.reduce(tensor, reduce_op="sum"))

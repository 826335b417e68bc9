"""ReFT: PPO on the policy's own executed solutions (paper, section 3.2), and later variants as settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from reft_pl.models.micro_batches import micro_batches, take
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.demonstrations import Demonstrations
from reft_pl.modules.kl_weight import KLWeight
from reft_pl.modules.policy_module import PolicyModule
from reft_pl.modules.ppo_settings import check_curriculum, check_settings
from reft_pl.modules.ppo_statistics import UpdateStatistics, rollout_statistics
from reft_pl.modules.reference import Reference
from reft_pl.modules.stage_module import MicroBatches
from reft_pl.modules.value_groups import value_groups
from reft_pl.reward.base import Reward, WeightedReward
from reft_pl.reward.rewards import Rewards
from reft_pl.rl.aggregation import Aggregation, AggregationKind
from reft_pl.rl.estimators import GAE, AdvantageEstimator, Experience
from reft_pl.rl.importance import truncated_importance
from reft_pl.rl.kl import KLPenalty
from reft_pl.rl.losses import clipped_value_loss
from reft_pl.rl.policy_losses import PolicyLoss, PPOClip
from reft_pl.rollout.curriculum import PrefixCurriculum, remaining_share
from reft_pl.rollout.filtering import (
    GlobalBatch,
    judged,
    with_overlong_punishment,
    with_varied_groups,
    without_truncated,
    without_unjudged,
)
from reft_pl.rollout.minibatches import minibatches, n_minibatches
from reft_pl.strategies.zero import whole_weights
from reft_pl.types import Problem, Rollout, SamplingParams, ScoredRollout


class PPOModule(PolicyModule):
    """Train with PPO: collect a rollout, estimate advantages, update.

    Args:
        policy: The warmed-up model; it is also the frozen reference of the KL penalty.
        reward: Reward class or function; None gives 1 for a correct answer, 0.1 for a wrong answer of the right type, else 0.
        rewards: Several rewards with weights, instead of ``reward``: a list of ``reward``, ``weight`` and ``name``.
        reward_timeout: Seconds that the rewards of a rollout may take; late ones count as None. None is no limit.
        kl: KL penalty that keeps the policy near its reference.
        teacher: Folder or hub id of another reference than the policy's start, with the same tokenizer. ``Distillation`` learns
            from it.
        advantages: Advantage estimator; None is GAE with a value head (gamma 1, lambda 0.95), whitened.
        policy_loss: Policy loss from ratio and advantage; None is PPO's clip at 0.2.
        rescore: Recompute log-probabilities and values with the policy before the update. False uses what the sampler
            recorded instead, which saves a forward pass. It differs by rounding, or by more if an engine computes differently.
            The entropy is then estimated from the samples, and the logged mismatch is 0. False excludes ``importance_clip``,
            a sampler's ``max_mismatch``, ``SequenceClip`` in bfloat16, and values that the sampler does not record (with a
            separate value model or an engine).
        importance_clip: Upper bound of truncated importance sampling, which weights an action's policy loss by the ratio of
            the scorer's probability to the sampler's. For samplers that compute differently from the policy, such as vLLM.
            None is off.
        aggregation: How losses are averaged (``rl.aggregation.Aggregation``). ``sequence`` (the paper): mean over a sequence's
            actions, then over sequences. ``token`` (DAPO): mean over all actions. ``sequence_sum`` (RLOO): sum over a
            sequence's actions, mean over sequences. ``constant`` (Dr. GRPO): sum divided by ``data.max_tokens`` times the
            number of sequences. None follows the paper of ``advantages``.
        value_clip_range: Clip range of the change in a value, in units of reward.
        value_coef: Weight of the value loss.
        ppo_epochs: Passes over each rollout.
        minibatch_size: Samples per optimizer step; None is the whole rollout.
        samples_per_problem: Completions per question in each rollout.
        filter_groups: Exclude questions from the update if all their samples have the same outcome (DAPO, section 3.2).
        max_resamples: How often other questions are sampled to replace excluded ones, until the batch is full.
        mask_truncated: Exclude completions from the update that the length limit cut off (DAPO, section 3.4).
        overlong_buffer: Share of a response's token limit over which the soft overlong punishment grows from 0 to -1 (DAPO,
            eq. 13: 0.2). It is added to the reward after ``filter_groups``. 0 is off.
        temperature: Temperature at which rollouts are sampled and scored, without top-k and top-p.
        offload_reference: Keep the reference in CPU memory except during scoring.
        separate_value_model: Use a separate trunk for values instead of a head on the policy's trunk (twice the compute).
        value_lr: Learning rate of the value head and of a separate value model; None is the policy's. Not under ZeRO.
        value_warmup: Rollouts at the start that train only the value function, on Monte Carlo returns of the fixed policy
            (VC-PPO, arXiv 2503.01491, section 4.1). Their optimizer steps count in the schedule. Not under ZeRO.
        annotated_coef: Weight of the mean cross-entropy over the tokens of annotated solutions to the rollout's questions
            (PPO-ptx, arXiv 2203.02155, eq. 2). Each optimizer step adds it, except during ``value_warmup``. 0 is off.
        annotated_batch_size: Annotated solutions per optimizer step over all ranks; None is ``minibatch_size``.
        annotated_schedule: ``constant`` weight, or ``linear`` decay to 0 over the learning-rate schedule.
        prefix_curriculum: Share of the run in which sampling prompts hold first lines of the annotated programs; their number
            shrinks to 0 (R3, arXiv 2402.05808). Given lines carry no loss. 0 is off.
        **kwargs: Settings of ``PolicyModule`` and ``StageModule``.
    """

    stage = "ppo"

    def __init__(
        self,
        policy: PolicySettings,
        reward: Reward | None = None,
        rewards: list[WeightedReward] | None = None,
        reward_timeout: float | None = None,
        kl: KLPenalty = KLPenalty(),
        teacher: str | None = None,
        advantages: AdvantageEstimator | None = None,
        policy_loss: PolicyLoss | None = None,
        rescore: bool = True,
        importance_clip: float | None = None,
        aggregation: AggregationKind | None = None,
        value_clip_range: float = 0.2,
        value_coef: float = 5.0,
        ppo_epochs: int = 2,
        minibatch_size: int | None = None,
        samples_per_problem: int = 1,
        filter_groups: bool = False,
        max_resamples: int = 0,
        mask_truncated: bool = False,
        overlong_buffer: float = 0.0,
        temperature: float = 1.0,
        offload_reference: bool = False,
        separate_value_model: bool = False,
        value_lr: float | None = None,
        value_warmup: int = 0,
        annotated_coef: float = 0.0,
        annotated_batch_size: int | None = None,
        annotated_schedule: Literal["constant", "linear"] = "constant",
        prefix_curriculum: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, **kwargs)
        self.rewards = Rewards(reward, rewards, reward_timeout)
        self.reward = self.rewards.single
        self.kl = kl
        self.kl_weight = KLWeight(kl)
        self.teacher = teacher
        self.advantages = advantages or GAE()
        self.policy_loss = policy_loss or PPOClip()
        self.rescore = rescore
        self.importance_clip = importance_clip
        self.aggregation = aggregation or self.advantages.aggregation
        self.value_clip_range = value_clip_range
        self.value_coef = value_coef
        self.ppo_epochs = ppo_epochs
        self.minibatch_size = minibatch_size
        self.samples_per_problem = samples_per_problem
        self.filter_groups = filter_groups
        self.max_resamples = max_resamples
        self.mask_truncated = mask_truncated
        self.overlong_buffer = overlong_buffer
        self.temperature = temperature
        self.offload_reference = offload_reference
        self.separate_value_model = separate_value_model
        self.value_lr = value_lr
        self.value_warmup = value_warmup
        self.demonstrations = Demonstrations(self, annotated_coef, annotated_batch_size, annotated_schedule)
        self.prefix_curriculum = prefix_curriculum
        self.value_kind = ("separate" if separate_value_model else "shared") if self.advantages.uses_values else "none"
        check_settings(self)

    def setup(self, stage: str) -> None:
        """Prepare what ``annotated_coef`` and ``prefix_curriculum`` need of the annotated solutions."""
        if stage == "fit":
            self.rewards.check(self.problems.train_problems)
            self.demonstrations.prepare()
            check_curriculum(self)

    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Run one iteration: a rollout on the batch's questions, then ``ppo_epochs`` passes of updates over it."""
        self.policy.eval()  # no dropout: the ratio at the first update must be 1
        rollout = self.collect(batch)
        if self.offload_reference:
            self._reference.to("cpu")
        self.phases.rollout_end(rollout)
        statistics = rollout_statistics(rollout, self.ranks, self.importance_clip)
        advantages, returns = self.estimate_advantages(rollout)
        statistics |= self.learn(batch, rollout, advantages, returns)
        statistics |= self.kl_weight.adapt(statistics["rollout/kl"], hold=self.warms_up_values)
        statistics |= self.demonstrations.statistics() | self.timing()
        if self.prefix_curriculum:
            statistics["rollout/given_share"] = self.remaining_share
        self.log_statistics(statistics)
        self.phases.update_end(statistics)

    @property
    def step(self) -> int:
        """Number of training batches before this one."""
        return self.trainer.fit_loop.epoch_loop.total_batch_idx

    @property
    def warms_up_values(self) -> bool:
        """Whether this batch trains only the value function."""
        return self.step < self.value_warmup

    @property
    def iterations(self) -> float:
        """Number of training batches of the learning-rate schedule."""
        return self.schedule_steps() / self.steps_per_batch()

    @property
    def remaining_share(self) -> float:
        """Share of the lines of annotated programs that prompts may hold in this iteration."""
        return remaining_share(self.step, self.iterations, self.prefix_curriculum)

    def collect(self, problems: list[Problem]) -> ScoredRollout:
        """Sample, execute, reward and score ``samples_per_problem`` solutions of each problem."""
        places, pool = self.ranks.places(len(problems)), self.problems.train_problems
        self.batch = batch = GlobalBatch(problems, places, self.ranks.gather, pool, self.seed, self.step)

        def refill(left_out: Sequence[Problem], attempt: int) -> Sequence[Problem] | None:
            return batch.refill(left_out) if attempt <= self.max_resamples else None

        with whole_weights(self.trainer.strategy):  # lengths and numbers of micro-batches differ between ranks
            rollout = self.sample_and_reward(problems)
            if self.filter_groups:
                rollout = with_varied_groups(rollout, self.samples_per_problem, refill, self.sample_and_reward)
            rollout = with_overlong_punishment(rollout, self.overlong_buffer, self.problems.codec.max_tokens)
            rollout = without_unjudged(rollout)
            if self.mask_truncated:
                rollout = without_truncated(rollout)
            return self.solver.collector.score(
                self.policy if self.rescore else None, self.reference, rollout,
                temperature=self.temperature, micro_batch_tokens=self.micro_batch_tokens,
            )  # fmt: skip

    def sample_and_reward(self, problems: Sequence[Problem], attempt: int = 0) -> Rollout:
        """Sample and reward one group per problem; attempts after the first use seeds that are unique within the epoch."""
        params = SamplingParams(self.problems.codec.max_tokens, self.temperature, record_values=not self.rescore)
        n = self.samples_per_problem
        first = n * (self.step * self.max_resamples + attempt) if attempt else 0
        if self.prefix_curriculum:
            problems = PrefixCurriculum(self.problems.codec, self.seed).apply(problems, self.step, self.remaining_share)
        samples = self.solver.sample(problems, params, n, first)
        return self.solver.collector.reward(self.policy, self.rewards, samples)

    def estimate_advantages(self, rollout: ScoredRollout) -> tuple[Tensor, Tensor | None]:
        """Return advantages and, with a value function, its targets (returns); both [B, T]."""
        mask = rollout.tokens.action_mask
        kl_rewards = self.kl.rewards(rollout.logprobs, rollout.ref_logprobs, mask, self.kl_weight.current)
        size, counted = self.samples_per_problem, judged(rollout)
        experience = Experience(rollout.outcome, kl_rewards, rollout.values, mask, size, self.ranks.sum, counted)
        if self.warms_up_values:
            return torch.zeros_like(kl_rewards), self.advantages.warmup_targets(experience)
        return self.advantages.estimate(experience)

    def learn(
        self, problems: Sequence[Problem], rollout: ScoredRollout, advantages: Tensor, returns: Tensor | None
    ) -> dict[str, float]:
        """Run all optimizer steps on one rollout. Excluding samples does not change the number of steps."""
        statistics, annotated = UpdateStatistics(self.policy_loss), self.demonstrations.of_rollout(problems)
        size = self.samples_per_problem
        places, sampled = self.batch.rows(rollout, size), len(problems) * size
        n, taken = (int(self.ranks.total(count)) for count in (len(rollout.samples), sampled))
        parts = n_minibatches(taken, self.minibatch_size)
        with self.phases.phase("update", self.ppo_epochs * len(rollout.samples)) as progress:
            for epoch in range(self.ppo_epochs):
                # If many samples are excluded, the last mini-batches are empty on every rank: skip them.
                for index, rows in enumerate(minibatches(places, n, parts, self.seed, self.step, epoch, size)[:n]):
                    examples = self.annotated(annotated.minibatch(epoch, index))
                    losses = self.losses(rollout, advantages, returns, rows, statistics)
                    result = self.update([*losses, *self.demonstrations.losses(examples, statistics)])
                    statistics.add_step(result)
                    masks = rollout.tokens.attention_mask[rows], examples.attention_mask
                    progress.advance(len(rows), sum(int(mask.sum()) for mask in masks))
        return statistics.compute(rollout, returns, self.ranks)

    def losses(
        self, rollout: ScoredRollout, advantages: Tensor, returns: Tensor | None, rows: Tensor, statistics: UpdateStatistics
    ) -> MicroBatches:
        """Build micro-batch losses that sum to policy + ``value_coef`` * value (+ KL) of the mini-batch, aggregated alike.

        During value warm-up the policy's terms have weight 0, and gradients of the value loss do not reach the policy.
        """
        limit, alone = self.problems.codec.max_tokens, self.warms_up_values
        mean = Aggregation(self.aggregation, rollout.tokens.action_mask[rows], self.ranks.share, max_tokens=limit)

        def loss(micro_rows: Tensor) -> Tensor:
            tokens = take(rollout.tokens, micro_rows)
            mask, columns = tokens.action_mask, slice(tokens.input_ids.shape[1])
            old_logprobs = rollout.logprobs[micro_rows, columns]
            scores = score(self.policy, tokens, temperature=self.temperature, detach_values=alone)
            ratio = self.policy_loss.ratio(scores.logprobs, old_logprobs, mask)
            policy_loss = self.policy_loss.per_action(ratio, advantages[micro_rows, columns], mask)
            if self.importance_clip is not None:
                sampler_logprobs = rollout.sampler_logprobs[micro_rows, columns]
                policy_loss = policy_loss * truncated_importance(old_logprobs, sampler_logprobs, mask, self.importance_clip)
            terms = {"policy": mean(policy_loss, mask)}
            if returns is not None:
                values, old_values = cast("Tensor", scores.values), rollout.values[micro_rows, columns]
                value_loss = clipped_value_loss(values, old_values, returns[micro_rows, columns], mask, self.value_clip_range)
                terms["value"] = self.value_coef * mean(value_loss, mask)
            if self.kl.place == "loss":
                kl = self.kl.estimate(scores.logprobs, rollout.ref_logprobs[micro_rows, columns], mask)
                terms["kl"] = self.kl_weight.current * mean(kl, mask)
            if alone:  # weight 0 rather than no pass: ranks exchange the gradients of all weights
                terms = {name: term if name == "value" else 0.0 * term for name, term in terms.items()}
            statistics.add_micro_batch(terms, ratio, scores.logprobs, old_logprobs, mask)
            return torch.stack(list(terms.values())).sum()

        tokens = take(rollout.tokens, rows)
        parts = micro_batches(tokens, self.micro_batch_tokens, shared=self.policy.shares_prompts)
        return [partial(loss, rows[part]) for part in parts]

    # ---- model

    def configure_model(self) -> None:
        """Load the policy with its value head and, for training, the frozen reference."""
        super().configure_model()
        if self.samples_per_problem > 1 and not self.policy.shares_prompts:
            rank_zero_info("this model computes the prompt again for every sample of a question (docs: concepts/batches)")
        if self.trainer.training and not hasattr(self, "_reference"):
            self._reference = Reference(self.policy, self.policy_settings, self.frozen_base, self.seed, self.teacher)
            if self.teacher is not None:
                self._reference.check_tokenizer(self.problems.codec)

    @property
    def reference(self) -> Policy:
        """The frozen reference policy, on this rank's device."""
        return self._reference.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the reference and the current weight of the KL penalty."""
        super().on_save_checkpoint(checkpoint)
        self._reference.mark(checkpoint)
        self.kl_weight.mark(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with another reference, and restore the weight of the KL penalty."""
        super().on_load_checkpoint(checkpoint)
        if self.trainer.training:
            self._reference.check(checkpoint)
        self.kl_weight.restore(checkpoint)

    def parameter_groups(self) -> list[Any]:
        """Return the trainable weights; ``value_lr`` or ``value_warmup`` separate the value function's from the policy's."""
        apart = self.value_lr is not None or self.value_warmup > 0
        return value_groups(self) if apart else super().parameter_groups()

    @property
    def fixed_groups(self) -> int:
        """Fix the policy's weights during value warm-up."""
        return 1 if self.warms_up_values else 0

    def steps_per_batch(self) -> int:
        """Return the number of optimizer steps per full rollout."""
        return self.ppo_epochs * n_minibatches(self.problems.batch_size * self.samples_per_problem, self.minibatch_size)

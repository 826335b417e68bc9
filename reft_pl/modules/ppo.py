"""ReFT: PPO on the policy's own executed solutions (paper, section 3.2), and its successors by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.loading import load_policy
from reft_pl.models.micro_batches import split, take
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.policy import BasePolicy, Policy
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.policy_module import PolicyModule
from reft_pl.modules.ppo_statistics import UpdateStatistics, rollout_statistics
from reft_pl.modules.schedule import Schedule
from reft_pl.modules.stage_module import MicroBatches
from reft_pl.reward.answer import AnswerReward
from reft_pl.reward.base import RewardFunction
from reft_pl.rl.aggregation import Aggregation
from reft_pl.rl.estimators import GAE, AdvantageEstimator, Experience
from reft_pl.rl.importance import truncated_importance
from reft_pl.rl.kl_penalty import KLPenalty
from reft_pl.rl.losses import clipped_value_loss
from reft_pl.rl.policy_losses import PolicyLoss, PPOClip
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.filtering import with_varied_groups, without_truncated, without_unjudged
from reft_pl.rollout.minibatches import minibatches, n_minibatches, places_over_ranks
from reft_pl.sandbox.base import Sandbox
from reft_pl.strategies.zero import whole_weights
from reft_pl.types import Problem, Rollout, SamplingParams, ScoredRollout


class PPOModule(PolicyModule):
    """Collect, estimate advantages, update.

    Args:
        policy: The warmed-up model; it is also the frozen reference of the KL penalty.
        optimizer: Makes the optimizer from the parameters.
        schedule: How the learning rate moves.
        reward: Gives each executed sample its outcome; None is 1 for right, 0.1 for a wrong answer of the right kind, else 0.
        kl: How the policy is kept near its reference.
        advantages: Gives every action its advantage; None is GAE with a value head (gamma 1, lambda 0.95), whitened.
        policy_loss: What is made of ratio and advantage; None is PPO's clip at 0.2.
        rescore: Score the samples under the policy before they are learned from. False takes what the sampler said of them when
            it drew them, which saves a forward pass: old log-probabilities and values are then off by rounding, or by all that
            an engine computes otherwise, and the entropy is estimated from the samples. Not with ``importance_clip``, a
            sampler's ``max_mismatch``, or values that the sampler does not record (a separate value model's, or beside an
            engine); the mismatch that is logged is 0 then.
        importance_clip: Weigh an action's policy loss with the ratio of the scorer's to the sampler's probability, at most this
            (truncated importance sampling): for samplers that compute otherwise than the policy, as vLLM's do. None is off.
        aggregation: Mean of the losses over a sequence's actions and then over sequences (the paper), or over all actions alike
            (DAPO, arXiv 2503.14476, section 3.3).
        value_clip_range: Clip of the value's change, in units of reward.
        value_coef: Weight of the value loss.
        ppo_epochs: Passes over each rollout.
        minibatch_size: Samples an optimizer step; None is the whole rollout.
        samples_per_problem: Completions a question in each rollout.
        filter_groups: Leave questions out of the update whose samples all have the same outcome (DAPO, section 3.2).
        max_resamples: Times that such a question is sampled anew, before it is left out.
        mask_truncated: Leave completions out of the update that the length limit cut off (DAPO, section 3.4).
        temperature: At which rollouts are sampled and scored; no top-k and no top-p.
        offload_reference: Keep the reference in the computer's memory but for scoring.
        separate_value_model: Give values a trunk of their own instead of a head on the policy's (twice the compute).
        gradient_clip_norm: Global norm to which gradients are clipped.
        micro_batch_tokens: Bound on rows times longest row of what goes through the model at once. It decides memory and,
            but for rounding, not results (``StageModule.update``).
        sampler: Writes completions; None is the in-process sampler.
        sandbox: Runs the programs in them; None is confined CPython.
        seed: Run seed, from which every draw of this stage is derived.
    """

    stage = "ppo"

    def __init__(
        self,
        policy: PolicySettings,
        optimizer: OptimizerCallable = MasterAdamW,
        schedule: Schedule = Schedule(),
        reward: RewardFunction | None = None,
        kl: KLPenalty = KLPenalty(),
        advantages: AdvantageEstimator | None = None,
        policy_loss: PolicyLoss | None = None,
        rescore: bool = True,
        importance_clip: float | None = None,
        aggregation: Literal["sequence", "token"] = "sequence",
        value_clip_range: float = 0.2,
        value_coef: float = 5.0,
        ppo_epochs: int = 2,
        minibatch_size: int | None = None,
        samples_per_problem: int = 1,
        filter_groups: bool = False,
        max_resamples: int = 0,
        mask_truncated: bool = False,
        temperature: float = 1.0,
        offload_reference: bool = False,
        separate_value_model: bool = False,
        gradient_clip_norm: float = 1.0,
        micro_batch_tokens: int = 4096,
        sampler: Sampler | None = None,
        sandbox: Sandbox | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__(policy, optimizer, schedule, gradient_clip_norm, micro_batch_tokens, sampler, sandbox, seed)
        if min(temperature, value_clip_range) <= 0 or min(value_coef, max_resamples) < 0:
            raise UserError(
                "temperature and value_clip_range must be positive, value_coef and max_resamples at least 0: check model.*"
            )
        if importance_clip is not None and importance_clip <= 0:
            raise UserError(f"model.importance_clip is {importance_clip}, but must be positive: 2 is usual, null is off")
        if min(ppo_epochs, samples_per_problem, 1 if minibatch_size is None else minibatch_size) < 1:
            raise UserError("ppo_epochs, samples_per_problem and minibatch_size must be at least 1: check model.*")
        self.reward = reward or AnswerReward()
        self.kl = kl
        self.kl_coef = kl.coef
        self.advantages = advantages or GAE()
        self.policy_loss = policy_loss or PPOClip()
        self.importance_clip = importance_clip
        needed = max(self.advantages.min_group, 2 if filter_groups else 1)
        if samples_per_problem < needed:
            who = type(self.advantages).__name__ if self.advantages.min_group == needed else "filter_groups"
            raise UserError(f"{who} compares a question's samples: set model.samples_per_problem to at least {needed}")
        if separate_value_model and not self.advantages.uses_values:
            name = type(self.advantages).__name__
            raise UserError(f"{name} learns no values: leave model.separate_value_model out, or choose GAE as model.advantages")
        unrecorded = self.advantages.uses_values and not self.sampler.records_values
        beside = f"{type(self.advantages).__name__} beside {type(self.sampler).__name__}, which records no values,"
        for setting, is_set in (
            ("model.importance_clip", importance_clip is not None),
            ("a separate value model", separate_value_model),
            (beside, unrecorded),
        ):
            if not rescore and is_set:
                raise UserError(f"{setting} needs the scores that model.rescore: false leaves out: choose one of the two")
        if not rescore and self.sampler.max_mismatch is not None:
            raise UserError("model.rescore: false leaves nothing to hold model.sampler.max_mismatch against: set that to null")
        self.rescore = rescore
        self.aggregation = aggregation
        self.value_clip_range = value_clip_range
        self.value_coef = value_coef
        self.ppo_epochs = ppo_epochs
        self.minibatch_size = minibatch_size
        self.samples_per_problem = samples_per_problem
        self.filter_groups = filter_groups
        self.max_resamples = max_resamples
        self.mask_truncated = mask_truncated
        self.temperature = temperature
        if offload_reference and policy.lora is not None:
            raise UserError("beside adapters the reference is the policy's own base: leave model.offload_reference out")
        self.offload_reference = offload_reference
        self.value_kind = ("separate" if separate_value_model else "shared") if self.advantages.uses_values else "none"

    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        """One iteration: a rollout on the batch's questions, then ``ppo_epochs`` passes of updates over it."""
        self.policy.eval()  # no dropout: the ratio at the first update must be 1
        rollout = self.collect(batch)
        if self.offload_reference:
            self._reference[0].to("cpu")
        self.phases.rollout_end(rollout)
        statistics = rollout_statistics(rollout, self.ranks, self.importance_clip)
        advantages, returns = self.estimate_advantages(rollout)
        statistics |= self.learn(batch, rollout, advantages, returns)
        statistics |= self.adapt_kl_penalty(statistics["rollout/kl"]) | self.timing()
        self.log_statistics(statistics)
        self.phases.update_end(statistics)

    def collect(self, problems: list[Problem]) -> ScoredRollout:
        """Sample, execute, reward and score ``samples_per_problem`` solutions of each problem."""
        with whole_weights(self.trainer.strategy):  # ranks sample other lengths, and score other numbers of micro-batches
            rollout = self.sample_and_reward(problems)
            if self.filter_groups:
                rollout = with_varied_groups(rollout, self.samples_per_problem, self.max_resamples, self.sample_and_reward)
            rollout = without_unjudged(rollout)
            if self.mask_truncated:
                rollout = without_truncated(rollout)
            return self.collector.score(
                self.policy if self.rescore else None, self.reference, rollout,
                temperature=self.temperature, micro_batch_tokens=self.micro_batch_tokens,
            )  # fmt: skip

    def sample_and_reward(self, problems: Sequence[Problem], attempt: int = 0) -> Rollout:
        """A group of samples a problem, other ones at each attempt."""
        params = SamplingParams(self.problems.codec.max_tokens, self.temperature, record_values=not self.rescore)
        n = self.samples_per_problem
        return self.collector.reward(self.policy, self.reward, self.sample(problems, params, n, first=attempt * n))

    def estimate_advantages(self, rollout: ScoredRollout) -> tuple[Tensor, Tensor | None]:
        """Advantages of every action and, with a value head, the returns that it shall learn, both [B, T]."""
        mask = rollout.tokens.action_mask
        kl_rewards = self.kl.rewards(rollout.logprobs, rollout.ref_logprobs, mask, self.kl_coef)
        return self.advantages.estimate(
            Experience(rollout.outcome, kl_rewards, rollout.values, mask, self.samples_per_problem, self.ranks.sum)
        )

    def learn(
        self, problems: Sequence[Problem], rollout: ScoredRollout, advantages: Tensor, returns: Tensor | None
    ) -> dict[str, float]:
        """All optimizer steps on one rollout; as many as the batch's ``problems`` take, whatever was left out."""
        statistics = UpdateStatistics(self.policy_loss)
        step, size = self.trainer.fit_loop.epoch_loop.total_batch_idx, self.samples_per_problem
        places = self.places(problems, rollout)
        n, taken = (int(self.ranks.total(count)) for count in (len(rollout.samples), len(problems) * size))
        parts = n_minibatches(taken, self.minibatch_size)
        with self.phases.phase("update", self.ppo_epochs * len(rollout.samples)) as progress:
            for epoch in range(self.ppo_epochs):
                # Parts that are empty on every rank, where too many were left out, are the last ones.
                for rows in minibatches(places, n, parts, self.seed, step, epoch)[:n]:
                    result = self.update(self.losses(rollout, advantages, returns, rows, statistics))
                    statistics.add_step(result)
                    progress.advance(len(rows), int(rollout.tokens.attention_mask[rows].sum()))
        return statistics.compute(rollout, returns, self.ranks)

    def places(self, problems: Sequence[Problem], rollout: ScoredRollout) -> Tensor:
        """Where the samples of this rank's rollout stand in that of all ranks, [B]."""
        place_of = dict(zip((p.id for p in problems), self.ranks.places(len(problems)), strict=True))
        mine = [place_of[sample.problem.id] for sample in rollout.samples[:: self.samples_per_problem]]
        return places_over_ranks(mine, self.ranks.gather(mine), self.samples_per_problem)

    def losses(
        self, rollout: ScoredRollout, advantages: Tensor, returns: Tensor | None, rows: Tensor, statistics: UpdateStatistics
    ) -> MicroBatches:
        """Micro-batch losses that sum to the mini-batch's: policy + ``value_coef`` * value (+ KL), each aggregated alike."""
        mean = Aggregation(self.aggregation, rollout.tokens.action_mask[rows], self.ranks.share)

        def loss(micro_rows: Tensor) -> Tensor:
            tokens = take(rollout.tokens, micro_rows)
            mask, columns = tokens.action_mask, slice(tokens.input_ids.shape[1])
            old_logprobs = rollout.logprobs[micro_rows, columns]
            scores = score(self.policy, tokens, temperature=self.temperature)
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
                terms["kl"] = self.kl_coef * mean(kl, mask)
            statistics.add_micro_batch(terms, ratio, scores.logprobs, old_logprobs, mask)
            return torch.stack(list(terms.values())).sum()

        return [partial(loss, rows[micro]) for micro in split(take(rollout.tokens, rows), self.micro_batch_tokens)]

    def adapt_kl_penalty(self, kl: float) -> dict[str, float]:
        """Move the weight of the KL penalty towards its target; says which weight this iteration had."""
        used = self.kl_coef
        self.kl_coef = self.kl.adapted(used, kl)
        return {"update/kl_coef": used}

    # ---- model

    def configure_model(self) -> None:
        """Load the policy with its value head and, to train, the frozen reference."""
        super().configure_model()
        if self.trainer.training and not hasattr(self, "_reference"):
            # In a tuple, so that the module neither trains nor saves it: a checkpoint need not hold what init_from holds.
            self._reference = (self._load_reference(),)

    def _load_reference(self) -> Policy:
        """A second copy of the warm-up; beside adapters, which leave it as it is, the policy's own base."""
        if self.policy_settings.lora is not None:
            return BasePolicy(self.policy)
        return load_policy(self.policy_settings, "none", seed=self.seed).requires_grad_(False)

    @property
    def reference(self) -> Policy:
        """The warm-up policy, frozen, in evaluation mode."""
        return self._reference[0].to(self.device)

    @cached_property
    def reference_id(self) -> str:
        """A digest of the reference, which never changes; beside adapters it was taken while this rank had whole weights."""
        return fingerprint(self._reference[0]) if self.policy_settings.lora is None else self._base_id

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which reference the run has; its weights are those of ``init_from``."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reft_reference"] = self.reference_id
        checkpoint["reft_kl_coef"] = self.kl_coef

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on against another reference than the one that the run began with."""
        super().on_load_checkpoint(checkpoint)
        if self.trainer.training and checkpoint["reft_reference"] != self.reference_id:
            raise UserError(
                f"{self.policy_settings.init_from} is not the model that this run started from any more: bring that one back, "
                f"or start anew in another --run_dir"
            )
        if self.kl.target is not None:
            self.kl_coef = checkpoint["reft_kl_coef"]

    def steps_per_batch(self) -> int:
        """Optimizer steps that a rollout of the full size takes."""
        return self.ppo_epochs * n_minibatches(self.problems.batch_size * self.samples_per_problem, self.minibatch_size)

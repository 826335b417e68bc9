"""Check the ranges and conflicts of PPO settings before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from reft_pl.errors import UserError
from reft_pl.rl.estimators import Distillation
from reft_pl.rl.policy_losses import SequenceClip

if TYPE_CHECKING:
    from reft_pl.modules.ppo import PPOModule


def check_settings(module: PPOModule) -> None:
    """Check every setting of a PPO stage.

    Raises:
        UserError: one is out of range, or conflicts with another.
    """
    _check_ranges(module)
    _check_groups(module)
    _check_values(module)
    _check_demonstrations(module)
    _check_teacher(module)
    if not module.rescore:
        _check_without_rescoring(module)
    if module.offload_reference and module.frozen_base.exists and module.teacher is None:
        raise UserError(
            "with LoRA the reference is the policy's own base, which cannot be offloaded: remove model.offload_reference"
        )


def check_curriculum(module: PPOModule) -> None:
    """Check that the training problems have programs to give lines of.

    Raises:
        UserError: none has, although ``prefix_curriculum`` is on.
    """
    lines = module.problems.codec.format.lines_to_give
    if module.prefix_curriculum and not any(map(lines, module.problems.train_problems)):
        raise UserError(
            f"model.prefix_curriculum is {module.prefix_curriculum}, but no training problem has an annotated program of two "
            "lines: set it to 0, or data.train to a source with programs"
        )


def _check_ranges(module: PPOModule) -> None:
    if min(module.temperature, module.value_clip_range) <= 0 or min(module.value_coef, module.max_resamples) < 0:
        raise UserError(
            "temperature and value_clip_range must be positive, value_coef and max_resamples at least 0: check model.*"
        )
    if module.importance_clip is not None and module.importance_clip <= 0:
        raise UserError(
            f"model.importance_clip is {module.importance_clip}, but must be positive: 2 is typical, null switches it off"
        )
    size = 1 if module.minibatch_size is None else module.minibatch_size
    if min(module.ppo_epochs, module.samples_per_problem, size) < 1:
        raise UserError("ppo_epochs, samples_per_problem and minibatch_size must be at least 1: check model.*")
    if not 0 <= module.overlong_buffer <= 1:
        raise UserError(
            f"model.overlong_buffer is {module.overlong_buffer}, but is a share of the response limit: "
            "set it between 0 (off) and 1; DAPO uses 0.2"
        )
    if not 0 <= module.prefix_curriculum <= 1:
        raise UserError(
            f"model.prefix_curriculum is {module.prefix_curriculum}, but is a share of the run: set it between 0 and 1"
        )
    if module.value_warmup < 0 or (module.value_lr is not None and module.value_lr < 0):
        raise UserError("value_warmup and value_lr must not be negative: check model.*")


def _check_groups(module: PPOModule) -> None:
    estimator = module.advantages
    needed = max(estimator.min_group, 2 if module.filter_groups else 1)
    if module.samples_per_problem < needed:
        who = type(estimator).__name__ if estimator.min_group == needed else "filter_groups"
        raise UserError(f"{who} compares a question's samples: set model.samples_per_problem to at least {needed}")


def _check_values(module: PPOModule) -> None:
    for setting, is_set in (
        ("separate_value_model", module.separate_value_model),
        ("value_lr", module.value_lr is not None),
        ("value_warmup", module.value_warmup > 0),
    ):
        if is_set and not module.advantages.uses_values:
            name = type(module.advantages).__name__
            raise UserError(f"{name} learns no values: remove model.{setting}, or set model.advantages to GAE")


def _check_demonstrations(module: PPOModule) -> None:
    term = module.demonstrations
    if term.coef < 0:
        raise UserError(f"model.annotated_coef is {term.coef:g}, but must not be negative: 1 is typical, 0 switches it off")
    if term.batch_size is not None and term.batch_size < 1:
        raise UserError(
            f"model.annotated_batch_size is {term.batch_size}, but must be at least 1: null takes model.minibatch_size"
        )
    for setting, is_set in (
        ("annotated_batch_size", term.batch_size is not None),
        ("annotated_schedule", term.schedule != "constant"),
    ):
        if is_set and not term.coef:
            raise UserError(f"model.{setting} needs a weight: set model.annotated_coef, or remove model.{setting}")


def _check_teacher(module: PPOModule) -> None:
    if isinstance(module.advantages, Distillation) and (module.kl.coef == 0 or module.kl.place == "loss"):
        raise UserError(
            "Distillation learns from the KL penalty in the reward: set model.kl.coef to 1 and model.kl.place to reward"
        )


def _check_without_rescoring(module: PPOModule) -> None:
    estimator, sampler = module.advantages, module.solver.sampler
    beside = f"{type(estimator).__name__} with {type(sampler).__name__}, which records no values,"
    for setting, is_set in (
        ("model.importance_clip", module.importance_clip is not None),
        ("a separate value model", module.separate_value_model),
        (beside, estimator.uses_values and not sampler.records_values),
    ):
        if is_set:
            raise UserError(f"{setting} needs the scoring pass that model.rescore: false skips: set it to true")
    if sampler.max_mismatch is not None:
        raise UserError(
            "model.sampler.max_mismatch needs the scoring pass that model.rescore: false skips: set model.rescore "
            "to true, or max_mismatch to null"
        )
    dtype = module.policy_settings.torch_dtype
    if isinstance(module.policy_loss, SequenceClip) and dtype != torch.float32:
        raise UserError(
            f"{type(module.policy_loss).__name__} has a clip range narrower than the rounding of "
            f"{str(dtype).removeprefix('torch.')} between sampler and policy: set model.rescore to true, or "
            "model.policy.dtype to float32"
        )

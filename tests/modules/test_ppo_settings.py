"""Settings of PPO: combinations that are refused, and defaults that depend on the estimator."""

from pathlib import Path
from typing import Any

import pytest

from reft_pl.errors import UserError
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule
from reft_pl.rl.estimators import GRPO, RLOO, AdvantageEstimator, MaxRL, Reinforce
from reft_pl.rl.policy_losses import SequenceClip
from reft_pl.rollout.vllm import VLLMSampler


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"advantages": GRPO()}, "GRPO compares a question's samples: set model.samples_per_problem to at least 2"),
        ({"filter_groups": True}, "filter_groups compares a question's samples"),
        ({"max_resamples": -1}, "max_resamples at least 0"),
        ({"advantages": RLOO(), "samples_per_problem": 2, "separate_value_model": True}, "RLOO learns no values"),
        ({"rescore": False, "separate_value_model": True}, "a separate value model needs the scoring pass that model.rescore"),
        (
            {"rescore": False, "sampler": VLLMSampler(2)},
            "GAE with VLLMSampler, which records no values, needs the scoring pass that",
        ),
        ({"rescore": False, "importance_clip": 2.0}, "model.importance_clip needs the scoring pass"),
        ({"advantages": RLOO(), "samples_per_problem": 2, "value_lr": 1e-3}, "RLOO learns no values: remove model.value_lr"),
        ({"advantages": RLOO(), "samples_per_problem": 2, "value_warmup": 1}, "remove model.value_warmup"),
        ({"value_warmup": -1}, "value_warmup and value_lr must not be negative"),
        ({"value_lr": -1.0}, "value_warmup and value_lr must not be negative"),
        ({"advantages": Reinforce(baseline="group")}, "Reinforce compares a question's samples"),
        ({"advantages": MaxRL()}, "MaxRL compares a question's samples"),
        ({"overlong_buffer": 1.5}, r"model.overlong_buffer is 1.5, but is a share of the response limit"),
        ({"overlong_buffer": -0.1}, r"model.overlong_buffer is -0.1"),
    ],
)
def test_incompatible_settings_are_refused(settings: dict[str, Any], sentence: str, micro_model: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        PPOModule(PolicySettings(str(micro_model)), **settings)


class Narrow(SequenceClip):
    """A subclass with the same rule."""


@pytest.mark.parametrize("loss", [SequenceClip(), Narrow(1e-2, 1e-2)])
@pytest.mark.parametrize("value", [False, True])
def test_a_sequence_clip_in_bfloat16_needs_rescoring(loss: SequenceClip, value: bool, micro_model: Path) -> None:
    advantages = {} if value else {"advantages": GRPO(), "samples_per_problem": 2}

    def make(dtype: Any, rescore: bool) -> PPOModule:
        return PPOModule(PolicySettings(str(micro_model), dtype=dtype), policy_loss=loss, rescore=rescore, **advantages)

    with pytest.raises(
        UserError, match=rf"{type(loss).__name__} has a clip range .* bfloat16 .*: set model.rescore to true, or "
    ):
        make("bfloat16", rescore=False)
    make("bfloat16", rescore=True)
    make("float32", rescore=False)


@pytest.mark.parametrize(
    ("advantages", "expected"),
    [
        (None, "sequence"),
        (GRPO(), "sequence"),
        (GRPO(normalise=False), "constant"),
        (RLOO(), "sequence_sum"),
        (MaxRL(), "sequence_sum"),
        (Reinforce(), "sequence_sum"),
        (Reinforce(whiten=True), "token"),
    ],
)
def test_losses_are_averaged_as_in_the_estimators_source(
    advantages: AdvantageEstimator | None, expected: str, micro_model: Path
) -> None:
    def make(**settings: Any) -> PPOModule:
        return PPOModule(PolicySettings(str(micro_model)), advantages=advantages, samples_per_problem=2, **settings)

    assert make().aggregation == expected
    assert make(aggregation="token").aggregation == "token", "a setting comes first"

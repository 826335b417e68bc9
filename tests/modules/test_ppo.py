"""The invariants of one PPO iteration, on a real Trainer and a model of a few thousand weights."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.stories.source import StorySource
from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule, RolloutCallback
from reft_pl.reward.base import RewardFunction
from reft_pl.rl.estimators import GAE, GRPO, RLOO, AdvantageEstimator, MaxRL, Reinforce
from reft_pl.rl.kl_penalty import KLPenalty
from reft_pl.rl.policy_losses import PPOClip, SequenceClip
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.vllm import VLLMSampler
from reft_pl.types import Completion, Problem, Sample, SampleRequest, ScoredRollout, StopReason


class Recorder(RolloutCallback):
    """Record the arguments of the hooks, and the weights before the first update."""

    def __init__(self) -> None:
        self.rollouts: list[ScoredRollout] = []
        self.statistics: list[dict[str, float]] = []
        self.phases: list[str] = []
        self.before: dict[str, torch.Tensor] = {}

    def on_phase_start(self, trainer: Trainer, module: LightningModule, phase: Any, total: int) -> None:
        self.phases.append(phase)

    def on_rollout_end(self, trainer: Trainer, module: LightningModule, rollout: Any) -> None:
        self.rollouts.append(rollout)
        self.before = self.before or {k: v.clone() for k, v in module.state_dict().items()}

    def on_update_end(self, trainer: Trainer, module: LightningModule, statistics: Any) -> None:
        self.statistics.append(dict(statistics))


class RewardFor(RewardFunction):
    """A reward that depends on the sampled text, so that advantages differ; or a constant."""

    def __init__(self, constant: float | None = None) -> None:
        self.constant = constant

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [sum(s.completion.token_ids) % 7 / 7 if self.constant is None else self.constant for s in samples]


def iterate(
    folder: Path,
    micro_model: Path,
    *callbacks: Callback,
    batches: int = 1,
    policy: PolicySettings | None = None,
    data: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[PPOModule, Recorder]:
    """Train for some batches of eight problems with short completions; ``data`` has other settings of the data."""
    recorder = Recorder()
    settings = {"reward": RewardFor(), "ppo_epochs": 1, "optimizer": lambda p: MasterAdamW(p, lr=1e-3)} | settings
    module = PPOModule(policy or PolicySettings(str(micro_model), from_scratch=True, dtype="float32"), **settings)
    defaults = {"train": [StorySource("train", 8 * batches)], "max_prompt_tokens": 190, "max_tokens": 195, "batch_size": 8}
    defaults |= {"format": PythonProgram(), "tokenizer": str(micro_model), "cache_dir": str(folder / "cache")}
    problems = ReasoningDataModule(**defaults | (data or {}))
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, callbacks=[recorder, *callbacks], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=problems)
    return module, recorder


def test_before_any_update_the_ratio_is_one_and_the_kl_is_zero(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model)
    (statistics,) = recorder.statistics
    assert statistics["update/ratio"] == pytest.approx(1, abs=1e-5)
    assert statistics["update/ratio_max"] == pytest.approx(1, abs=1e-5)
    assert statistics["update/clip_fraction"] == 0
    assert statistics["rollout/kl"] == pytest.approx(0, abs=1e-5)


def test_after_an_update_they_are_not(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, batches=2, ppo_epochs=3)
    assert recorder.statistics[0]["update/ratio_max"] > 1.0001
    assert abs(recorder.statistics[1]["rollout/kl"]) > 1e-6


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_samplers_logprobs_are_the_scorers(temperature: float, tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, temperature=temperature)
    (rollout,) = recorder.rollouts
    for row, sample in enumerate(rollout.samples):
        scored = rollout.logprobs[row][rollout.tokens.action_mask[row]]
        torch.testing.assert_close(scored, torch.tensor(sample.completion.logprobs), atol=1e-4, rtol=0)


def test_actions_are_the_sampled_tokens_and_nothing_else(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model)
    (rollout,) = recorder.rollouts
    assert {s.completion.stop for s in rollout.samples} >= {StopReason.LENGTH}, "an untrained model is cut off"
    for row, sample in enumerate(rollout.samples):
        positions = rollout.tokens.action_mask[row].nonzero().squeeze(1)
        assert rollout.tokens.input_ids[row, positions + 1].tolist() == list(sample.completion.token_ids)


def test_results_do_not_depend_on_micro_batches(tmp_path: Path, micro_model: Path) -> None:
    weights = []
    for tokens in (10_000, 400, 1):
        module, _ = iterate(tmp_path / str(tokens), micro_model, micro_batch_tokens=tokens, minibatch_size=4)
        weights.append({k: v.clone() for k, v in module.state_dict().items()})
    start = iterate(tmp_path / "start", micro_model, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))[0].state_dict()
    for other in weights[1:]:
        changes = [(weights[0][k] - start[k], other[k] - start[k]) for k in start]
        distance = sum(float((a - b).square().sum()) for a, b in changes) ** 0.5
        size = sum(float(a.square().sum()) for a, _ in changes) ** 0.5
        assert size > 1e-2, "the weights moved at all"
        # Adam divides by the gradient's size, which amplifies rounding where a gradient is near zero.
        assert distance < 1e-3 * size


class Recording(torch.optim.SGD):
    """Record the gradients of each step as one vector; with SGD, steps differ no more than gradients."""

    def __init__(self, parameters: Any, seen: list[torch.Tensor]) -> None:
        super().__init__(parameters, lr=1e-2)
        self.seen = seen

    def step(self, closure: Any = None) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        assert all(g is not None for g in gradients)
        self.seen.append(torch.cat([g.flatten() for g in gradients]).double())
        super().step(closure)


def test_gradients_do_not_depend_on_micro_batches(tmp_path: Path, micro_model: Path) -> None:
    runs = []
    for tokens in (10_000, 400, 1):
        gradients: list[torch.Tensor] = []
        optimizer = partial(Recording, seen=gradients)
        settings = {"micro_batch_tokens": tokens, "minibatch_size": 4, "ppo_epochs": 2, "gradient_clip_norm": 1e6}
        iterate(tmp_path / str(tokens), micro_model, optimizer=optimizer, **settings)
        runs.append(gradients)
    whole, *cut = runs
    assert len(whole) == 4
    assert all(gradient.norm() > 1e-2 for gradient in whole), "there is something to compare"
    for other in cut:
        for step, (a, b) in enumerate(zip(whole, other, strict=True)):
            assert (a - b).norm() < 1e-5 * a.norm(), f"step {step}"


class Misreporting(InProcessSampler):
    """Record each token's probability too low by a factor of e^shift, as a different engine might."""

    def __init__(self, shift: float, max_mismatch: float | None = None) -> None:
        super().__init__()
        self.shift = shift
        self.max_mismatch = max_mismatch

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        for completion in super().stream(requests):
            yield replace(completion, logprobs=tuple(said - self.shift for said in completion.logprobs))


def test_the_samplers_mismatch_is_logged(tmp_path: Path, micro_model: Path) -> None:
    for shift, run in ((0.0, "own"), (-0.3, "other")):
        _, recorder = iterate(tmp_path / run, micro_model, sampler=Misreporting(shift))
        assert recorder.statistics[0]["rollout/sampler_mismatch"] == pytest.approx(abs(shift), abs=1e-4)
        assert recorder.statistics[0]["rollout/sampler_mismatch_max"] == pytest.approx(abs(shift), abs=1e-3)
        assert "rollout/importance" not in recorder.statistics[0]


@pytest.mark.parametrize(("shift", "weight", "cut"), [(-0.5, math.exp(-0.5), 0.0), (0.5, math.exp(0.5), 0.0), (3.0, 2.0, 1.0)])
def test_the_policy_loss_is_weighted_with_the_truncated_importance(
    shift: float, weight: float, cut: float, tmp_path: Path, micro_model: Path
) -> None:
    gradients: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for corrected, seen in gradients.items():
        settings = {"optimizer": partial(Recording, seen=seen), "gradient_clip_norm": 1e6, "value_coef": 0.0}
        settings |= {"sampler": Misreporting(shift), "importance_clip": 2.0 if corrected else None}
        _, recorder = iterate(tmp_path / str(corrected), micro_model, **settings)
        if corrected:
            assert recorder.statistics[0]["rollout/importance"] == pytest.approx(weight, rel=1e-3)
            assert recorder.statistics[0]["rollout/importance_cut"] == cut
    (with_weight,), (without,) = gradients[True], gradients[False]
    assert without.norm() > 1e-3, "there is something to compare"
    assert (with_weight - weight * without).norm() < 1e-3 * without.norm()


def test_a_sampler_with_other_weights_than_the_policy_stops_the_run(tmp_path: Path, micro_model: Path) -> None:
    iterate(tmp_path / "near", micro_model, sampler=Misreporting(0.1, max_mismatch=0.2))
    with pytest.raises(UserError, match=r"Misreporting and the policy differ by 0\.300 nats per token.* not used for training"):
        iterate(tmp_path / "far", micro_model, sampler=Misreporting(0.3, max_mismatch=0.2))
    with pytest.raises(UserError, match="differ by nan nats per token"):
        iterate(tmp_path / "nan", micro_model, sampler=Misreporting(float("nan"), max_mismatch=0.2))


class Poison(RolloutCallback):
    """Set one outcome of each rollout to NaN after the check, to simulate a bug of ours."""

    def on_rollout_end(self, trainer: Trainer, module: LightningModule, rollout: Any) -> None:
        rollout.outcome[0] = float("nan")


def test_a_loss_that_is_not_finite_never_reaches_the_weights(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, Poison(), ppo_epochs=2)
    assert recorder.statistics[0]["update/skipped"] == 2
    assert module.trainer.global_step == 0
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, recorder.before[name]), name


def test_a_reward_that_is_not_finite_stops_the_run(tmp_path: Path, micro_model: Path) -> None:
    with pytest.raises(UserError, match=r"RewardFor returned nan for a sample of the problem 'story_train_0_\d+'"):
        iterate(tmp_path, micro_model, reward=RewardFor(float("nan")))


def test_a_separate_value_model_learns_beside_the_policy(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, separate_value_model=True, batches=2)
    changed = {k.split(".")[1] for k, v in module.state_dict().items() if not torch.equal(v, recorder.before[k])}
    assert changed == {"lm", "value_trunk", "value_head"}
    assert torch.isfinite(recorder.rollouts[-1].values).all()


def test_several_samples_a_problem_stand_together(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, samples_per_problem=3)
    (rollout,) = recorder.rollouts
    ids = [sample.problem.id for sample in rollout.samples]
    assert ids == [problem for problem in dict.fromkeys(ids) for _ in range(3)]
    assert len({sample.completion.token_ids for sample in rollout.samples[:3]}) > 1


def test_the_phases_of_an_iteration_come_in_order(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model)
    assert recorder.phases == ["rollout", "execute", "score", "update"]
    statistics = recorder.statistics[0]
    assert {f"seconds/{phase}" for phase in recorder.phases} <= statistics.keys()
    fractions = [value for name, value in statistics.items() if name.startswith("status/")]
    assert sum(fractions) == pytest.approx(1)


def test_the_reference_is_neither_trained_nor_saved(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model)
    assert not any("reference" in name for name in module.state_dict())
    before = {k.removeprefix("policy."): v for k, v in recorder.before.items()}
    for name, weight in module.reference.state_dict().items():
        assert torch.equal(weight, before[name]), name


ESTIMATORS: list[dict[str, Any]] = [
    {"advantages": GRPO(), "policy_loss": PPOClip(clip_higher=0.28, dual_clip=3.0), "aggregation": "token"},
    {"advantages": RLOO(), "kl": KLPenalty(0.1, "k3", "loss"), "policy_loss": SequenceClip(0.1, 0.1)},
    {"advantages": Reinforce(whiten=True), "kl": KLPenalty(0.1, "k2"), "filter_groups": True},
    {"advantages": Reinforce(True, "group"), "kl": KLPenalty(0.1, "k2", "loss"), "overlong_buffer": 0.5},
    {"advantages": GRPO(normalise=False), "filter_groups": True, "max_resamples": 1},
    {"advantages": MaxRL(), "kl": KLPenalty(0.1)},
]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(settings, id=name, marks=[] if name in ("grpo", "reinforce_baseline") else [pytest.mark.slow])
        for name, settings in zip(
            ("grpo", "rloo", "reinforce", "reinforce_baseline", "dr_grpo", "maxrl"), ESTIMATORS, strict=True
        )
    ],
)
def test_gradients_of_every_estimator_do_not_depend_on_micro_batches(
    settings: dict[str, Any], tmp_path: Path, micro_model: Path
) -> None:
    runs = []
    for tokens in (10_000, 400, 1):
        gradients: list[torch.Tensor] = []
        steps = {"micro_batch_tokens": tokens, "minibatch_size": 8, "ppo_epochs": 2, "gradient_clip_norm": 1e6}
        optimizer = partial(Recording, seen=gradients)
        iterate(tmp_path / str(tokens), micro_model, optimizer=optimizer, samples_per_problem=2, **steps, **settings)
        runs.append(gradients)
    whole, *cut = runs
    assert len(whole) == 4
    assert all(gradient.norm() > 1e-4 for gradient in whole), "there is something to compare"
    for other in cut:
        for step, (a, b) in enumerate(zip(whole, other, strict=True)):
            assert (a - b).norm() < 1e-5 * a.norm(), f"step {step}"


def test_estimators_without_values_train_no_value_head(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, advantages=RLOO(), samples_per_problem=2)
    assert module.policy.value_head is None
    assert not any("value" in name or "explained" in name for name in recorder.statistics[0])
    assert recorder.statistics[0]["update/policy_loss"] == pytest.approx(recorder.statistics[0]["update/loss"])


@pytest.mark.parametrize("advantages", [RLOO(), GAE()])
def test_without_scoring_again_the_update_is_the_same(advantages: RLOO | GAE, tmp_path: Path, micro_model: Path) -> None:
    settings: dict[str, Any] = {"advantages": advantages, "samples_per_problem": 2, "ppo_epochs": 2, "minibatch_size": 4}
    settings |= {"kl": KLPenalty(0.1, "k3", "loss"), "temperature": 1.3}

    def learned(rescore: bool) -> tuple[list[torch.Tensor], Recorder]:
        gradients: list[torch.Tensor] = []
        optimizer = partial(Recording, seen=gradients)
        _, recorder = iterate(tmp_path / str(rescore), micro_model, optimizer=optimizer, rescore=rescore, batches=2, **settings)
        return gradients, recorder

    (scored, with_scores), (said, without) = learned(True), learned(False)
    assert len(scored) == len(said) == 16
    for step, (a, b) in enumerate(zip(scored, said, strict=True)):
        assert (a - b).norm() < 1e-4 * a.norm(), f"step {step}"
    for rollout, other in zip(with_scores.rollouts, without.rollouts, strict=True):
        assert torch.equal(other.logprobs, other.sampler_logprobs)
        assert not torch.equal(rollout.logprobs, rollout.sampler_logprobs), "the scorer rounds otherwise: it was at work"
        assert torch.allclose(other.values, rollout.values, atol=1e-5)
    assert bool(without.rollouts[-1].values.any()) is advantages.uses_values, "the value head has learned to say something"
    figures = [recorder.statistics[0]["rollout/entropy"] for recorder in (with_scores, without)]
    assert figures[1] == pytest.approx(figures[0], rel=0.1), "estimated from the samples"


class RightFor(RewardFunction):
    """1 or 0 by the parity of the sampled tokens, always 0 for some problems."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        def known(problem: Problem) -> bool:
            return int(problem.id.rsplit("_", 1)[1]) % 2 == 0

        return [float(known(s.problem) and sum(s.completion.token_ids) % 2 == 0) for s in samples]


def test_groups_of_one_outcome_are_left_out_but_shown(tmp_path: Path, micro_model: Path) -> None:
    settings = {"advantages": RLOO(), "samples_per_problem": 4, "filter_groups": True, "reward": RightFor()}
    _, recorder = iterate(tmp_path, micro_model, **settings)
    (rollout,) = recorder.rollouts
    assert all(0 < group.sum() < 4 for group in rollout.outcome.view(-1, 4))
    assert rollout.left_out is not None
    assert {len(set(group.tolist())) for group in rollout.left_out.outcome.view(-1, 4)} == {1}
    assert len(rollout.sampled) == 8 * 4
    assert len({sample.problem.id for sample, _ in rollout.sampled}) == 8
    share = recorder.statistics[0]["rollout/left_out"]
    assert share == pytest.approx(1 - len(rollout.samples) / 32)
    assert 0 < share < 1


@pytest.mark.parametrize("max_resamples", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_other_questions_take_their_places_up_to_a_bound(max_resamples: int, tmp_path: Path, micro_model: Path) -> None:
    settings = {"advantages": RLOO(), "samples_per_problem": 2, "filter_groups": True, "reward": RightFor(), "batches": 4}
    _, without = iterate(tmp_path / "0", micro_model, **settings)
    _, recorder = iterate(tmp_path / "n", micro_model, max_resamples=max_resamples, **settings)
    first, rollout = without.rollouts[0], recorder.rollouts[0]
    kept, before = ([s.completion for s in r.samples[: len(first.samples)]] for r in (rollout, first))
    assert kept == before, "what varied at once is not sampled again"
    sizes, unfilled = ([len(r.samples) for r in found.rollouts] for found in (recorder, without))
    assert sum(unfilled) < sum(sizes)
    assert max(sizes) <= 8 * 2, "the batch is filled, and never over its size"
    sampled = Counter(s.problem.id for s, _ in rollout.sampled)
    assert set(sampled.values()) == {2}, "dynamic sampling takes new questions, not the same ones again"
    assert 8 < len(sampled) <= 8 * (1 + max_resamples)
    for met in recorder.rollouts:
        groups = met.outcome.view(-1, 2)
        assert (groups[:, 0] != groups[:, 1]).all()


@pytest.mark.slow
def test_a_question_that_refills_several_batches_of_an_epoch_draws_other_samples(tmp_path: Path, micro_model: Path) -> None:
    """Seeds depend on the batch; otherwise rollouts of one epoch would share random numbers."""
    settings = {"samples_per_problem": 2, "filter_groups": True, "reward": RewardFor(0.0), "max_resamples": 1, "batches": 4}
    _, recorder = iterate(tmp_path, micro_model, advantages=RLOO(), **settings)
    texts = defaultdict(list)
    for rollout in recorder.rollouts:
        assert not rollout.samples
        for sample, _ in rollout.sampled:
            texts[sample.problem.id].append(sample.completion.token_ids)
    assert any(len(of_question) > 2 for of_question in texts.values())
    for of_question in texts.values():
        assert len(set(of_question)) == len(of_question)


def test_a_rollout_of_which_nothing_is_left_changes_nothing(tmp_path: Path, micro_model: Path) -> None:
    settings = {"advantages": GRPO(), "samples_per_problem": 2, "filter_groups": True, "reward": RewardFor(0.0)}
    module, recorder = iterate(tmp_path, micro_model, **settings)
    assert recorder.statistics[0]["rollout/left_out"] == 1
    assert module.trainer.global_step == 0
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, recorder.before[name]), name


def test_completions_that_were_cut_off_are_left_out_by_setting(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, mask_truncated=True)
    (rollout,) = recorder.rollouts
    for row, sample in enumerate(rollout.samples):
        assert bool(rollout.tokens.action_mask[row].any()) == (sample.completion.stop is StopReason.EOS)


def test_the_weight_of_the_kl_penalty_moves_to_its_target_and_is_saved(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, kl=KLPenalty(0.5, target=1e6), batches=2)
    assert [s["update/kl_coef"] for s in recorder.statistics] == pytest.approx([0.5, 0.49])
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["reft_kl_coef"] == pytest.approx(0.5 * 0.98**2)


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
def test_settings_that_do_not_go_together(settings: dict[str, Any], sentence: str, micro_model: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        PPOModule(PolicySettings(str(micro_model)), **settings)


class Narrow(SequenceClip):
    """A subclass, to which the same rule applies."""


@pytest.mark.parametrize("loss", [SequenceClip(), Narrow(1e-2, 1e-2)])
@pytest.mark.parametrize("value", [False, True])
def test_a_sequence_clip_in_bfloat16_wants_the_scorers_probabilities(
    loss: SequenceClip, value: bool, micro_model: Path
) -> None:
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
def test_losses_are_averaged_as_the_estimators_source_does(
    advantages: AdvantageEstimator | None, expected: str, micro_model: Path
) -> None:
    def make(**settings: Any) -> PPOModule:
        return PPOModule(PolicySettings(str(micro_model)), advantages=advantages, samples_per_problem=2, **settings)

    assert make().aggregation == expected
    assert make(aggregation="token").aggregation == "token", "a setting comes first"

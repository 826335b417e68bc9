"""The cross-entropy on annotated solutions in PPO, against hand-computed values on a real Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.loader import ProblemLoader
from reft_pl.data.stories.source import StorySource
from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule
from reft_pl.rl.estimators import RLOO
from reft_pl.rl.kl import KLPenalty
from tests.modules.iteration import Recorder, Recording, RewardFor, Weights, iterate
from tests.modules.stops import SIGNAL_AT, assert_same_run, fit

Overlay = Callable[..., str]
MIXED = {"train": [StorySource("train", 5), StorySource("train", 3, start=5, solutions=False)]}
"""Eight questions, three of them without a solution."""


def learn(folder: Path, model: Path, **settings: Any) -> tuple[list[torch.Tensor], PPOModule, Recorder]:
    """Return the gradient of each optimizer step, the module and what it logged."""
    seen: list[torch.Tensor] = []
    optimizer = partial(Recording, seen=seen)
    module, recorder = iterate(folder, model, optimizer=optimizer, **{"gradient_clip_norm": 1e6} | settings)
    return seen, module, recorder


def cross_entropy(module: PPOModule, weights: dict[str, torch.Tensor], ids: Sequence[str]) -> tuple[torch.Tensor, float]:
    """Return the gradient and value of the mean over the target tokens of the named problems, from the model's own logits."""
    module.load_state_dict(weights)
    losses = []
    for example in module.problems.examples([p for p in module.problems.train_problems if p.id in ids]):
        row = torch.tensor([example.ids])
        logprobs = module.policy.lm(row).logits[0, :-1].log_softmax(-1)
        targets = row[0, example.prompt_length :]
        losses += [-logprobs[example.prompt_length - 1 :].gather(-1, targets[:, None]).flatten()]
    mean = torch.cat(losses).mean()
    gradients = torch.autograd.grad(mean, list(module.parameters()), allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(module.parameters(), gradients, strict=True)]
    return torch.cat([g.flatten() for g in flat]).double(), mean.item()


@pytest.mark.parametrize("value_model", [{}, {"separate_value_model": True}, {"advantages": RLOO(), "samples_per_problem": 2}])
def test_a_step_adds_the_weighted_mean_over_the_annotated_tokens(
    value_model: dict[str, Any], tmp_path: Path, micro_model: Path
) -> None:
    (without,), _, _ = learn(tmp_path / "without", micro_model, data=MIXED, **value_model)
    (gradient,), module, recorder = learn(tmp_path / "with", micro_model, data=MIXED, annotated_coef=0.7, **value_model)
    annotated = [p.id for p in module.problems.train_problems if p.solution]
    assert len(annotated) == 5
    expected, mean = cross_entropy(module, recorder.before, annotated)
    assert expected.norm() > 0.1, "there is something to compare"
    assert (gradient - without - 0.7 * expected).norm() < 1e-5 * expected.norm()
    (statistics,) = recorder.statistics
    assert statistics["update/annotated_coef"] == 0.7
    assert statistics["update/annotated_loss"] == pytest.approx(0.7 * mean, rel=1e-5)
    terms = [value for name, value in statistics.items() if name.startswith("update/") and name.endswith("_loss")]
    assert statistics["update/loss"] == pytest.approx(sum(terms), rel=1e-5)


def test_gradients_do_not_depend_on_micro_batches(tmp_path: Path, micro_model: Path) -> None:
    settings = {"minibatch_size": 4, "ppo_epochs": 2, "annotated_coef": 1.0, "annotated_batch_size": 3}
    whole, *others = (
        learn(tmp_path / str(tokens), micro_model, data=MIXED, micro_batch_tokens=tokens, **settings)[0]
        for tokens in (10_000, 400, 1)
    )
    assert len(whole) == 4
    for other in others:
        assert max(float((a - b).norm() / a.norm()) for a, b in zip(whole, other, strict=True)) < 1e-6


def test_a_rollout_without_annotated_solutions_adds_nothing(tmp_path: Path, micro_model: Path) -> None:
    """The only annotated question is in the second of two rollouts."""
    first, second = ProblemLoader(range(16), 8, seed=1).global_batches(0)
    place = next(i for i in second if 0 < i < 15)
    windows = ((0, place, False), (place, 1, True), (place + 1, 15 - place, False))
    data = {"train": [StorySource("train", size, start=start, solutions=kept) for start, size, kept in windows]}
    run = partial(learn, model=micro_model, batches=2, data=data)
    with_term, _, recorder = run(tmp_path / "with", annotated_coef=1.0)
    without, _, _ = run(tmp_path / "without")
    assert place not in first
    assert torch.equal(with_term[0], without[0])
    assert (with_term[1] - without[1]).norm() > 0.1
    assert ["update/annotated_loss" in statistics for statistics in recorder.statistics] == [False, True]


def test_while_values_warm_up_nothing_is_added(tmp_path: Path, micro_model: Path) -> None:
    with_term, without = Weights(), Weights()
    settings: dict[str, Any] = {"batches": 2, "value_warmup": 1}
    _, recorder = iterate(tmp_path / "with", micro_model, with_term, annotated_coef=1.0, **settings)
    iterate(tmp_path / "without", micro_model, without, **settings)
    assert with_term.changed == [{"value"}, {"policy", "value"}]
    _, warmed_up, last = ([torch.equal(a[n], b[n]) for n in a] for a, b in zip(with_term.seen, without.seen, strict=True))
    assert all(warmed_up)
    assert not any(last)
    assert [statistics["update/annotated_coef"] for statistics in recorder.statistics] == [0.0, 1.0]


def test_a_linear_weight_falls_to_zero_over_the_run(tmp_path: Path, micro_model: Path) -> None:
    settings: dict[str, Any] = {"batches": 2, "ppo_epochs": 2, "minibatch_size": 4, "annotated_coef": 0.5}
    _, recorder = iterate(tmp_path, micro_model, annotated_schedule="linear", **settings)
    assert [statistics["update/annotated_coef"] for statistics in recorder.statistics] == [0.5, 0.25]


def test_the_policy_learns_the_annotated_solutions(tmp_path: Path, micro_model: Path) -> None:
    """Rewards are equal and there is no KL penalty, so nothing else teaches the policy."""
    settings: dict[str, Any] = {"advantages": RLOO(), "samples_per_problem": 2, "reward": RewardFor(1.0), "kl": KLPenalty(0.0)}
    optimizer = partial(MasterAdamW, lr=1e-2)
    _, recorder = iterate(tmp_path, micro_model, batches=2, optimizer=optimizer, ppo_epochs=8, annotated_coef=1.0, **settings)
    first, second = (statistics["update/annotated_loss"] for statistics in recorder.statistics)
    assert second < 0.9 * first


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"annotated_coef": -0.5}, r"model.annotated_coef is -0.5, but must not be negative"),
        ({"annotated_coef": 1.0, "annotated_batch_size": 0}, r"model.annotated_batch_size is 0, but must be at least 1"),
        ({"annotated_batch_size": 8}, r"model.annotated_batch_size needs a weight: set model.annotated_coef, or remove"),
        ({"annotated_schedule": "linear"}, r"model.annotated_schedule needs a weight"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], sentence: str, micro_model: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        PPOModule(PolicySettings(str(micro_model)), **settings)


@pytest.mark.parametrize(
    ("settings", "data", "limits", "sentence"),
    [
        ({}, {"train": [StorySource("train", 8, solutions=False)]}, {}, r"annotated_coef is 1, but no training problem has an"),
        ({}, {"max_prompt_tokens": 120, "max_tokens": 130}, {}, r"the annotated solution of story_train_0_\d makes \d+ tokens"),
        ({"annotated_schedule": "linear"}, {}, {"max_epochs": -1}, "annotated_schedule is linear, but the run has no end"),
    ],
    ids=["no solution", "too long", "endless"],
)
def test_what_the_data_or_the_trainer_does_not_allow_stops_before_training(
    settings: dict[str, Any], data: dict[str, Any], limits: dict[str, Any], sentence: str, micro_model: Path, tmp_path: Path
) -> None:
    policy = PolicySettings(str(micro_model), from_scratch=True, dtype="float32")
    module = PPOModule(policy, annotated_coef=1.0, **settings)
    defaults = {"train": [StorySource("train", 8)], "max_prompt_tokens": 190, "max_tokens": 195, "cache_dir": str(tmp_path)}
    problems = ReasoningDataModule(format=PythonProgram(), tokenizer=str(micro_model), batch_size=8, **defaults | data)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        **{"max_epochs": 1} | limits,
    )  # fmt: skip
    with pytest.raises(UserError, match=sentence):
        trainer.fit(module, datamodule=problems)
    assert not hasattr(module, "policy"), "no weights were loaded"


@pytest.mark.slow
def test_a_stopped_run_resumes_bitwise(overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within an epoch, with a weight that falls over the run."""
    (tmp_path / "signal_at.py").write_text(SIGNAL_AT)
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"annotated_coef": 1.0, "annotated_batch_size": 3, "annotated_schedule": "linear", "minibatch_size": 2}
    model = {"init_args": settings | {"reward": {"class_path": "signal_at.Length"}}}
    config = overlay("run", trainer={"max_epochs": 2, "num_sanity_val_steps": 0}, model=model)
    assert fit("ppo", config, tmp_path / "whole") == 0
    stop = '[{"class_path": "signal_at.StopAt", "init_args": {"batch": 2}}]'
    assert fit("ppo", config, tmp_path / "parts", "--trainer.callbacks+", stop) == 0
    assert fit("ppo", config, tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")

"""The invariants of one PPO iteration, on a real Trainer and a model of a few thousand weights."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from reft_pl.errors import UserError
from reft_pl.modules import RolloutCallback
from reft_pl.rl.estimators import GAE, AdvantageEstimator, Reinforce
from reft_pl.rl.kl import KLPenalty
from reft_pl.types import Problem, StopReason
from tests.modules.iteration import Recording, RewardFor, iterate


def test_before_any_update_the_ratio_is_one_and_the_kl_is_zero(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model)
    (statistics,) = recorder.statistics
    assert statistics["update/ratio"] == pytest.approx(1, abs=1e-5)
    assert statistics["update/ratio_max"] == pytest.approx(1, abs=1e-5)
    assert statistics["update/clip_fraction"] == 0
    assert statistics["rollout/kl"] == pytest.approx(0, abs=1e-5)


def test_after_an_update_ratio_and_kl_change(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, batches=2, ppo_epochs=3)
    assert recorder.statistics[0]["update/ratio_max"] > 1.0001
    assert abs(recorder.statistics[1]["rollout/kl"]) > 1e-6


def test_actions_are_exactly_the_sampled_tokens(tmp_path: Path, micro_model: Path) -> None:
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


class Poison(RolloutCallback):
    """Set one outcome of each rollout to NaN after the check, to simulate a bug of ours."""

    def on_rollout_end(self, trainer: Trainer, module: LightningModule, rollout: Any) -> None:
        rollout.outcome[0] = float("nan")


def test_a_non_finite_loss_never_reaches_the_weights(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, Poison(), ppo_epochs=2)
    assert recorder.statistics[0]["update/skipped"] == 2
    assert module.trainer.global_step == 0
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, recorder.before[name]), name


def test_a_non_finite_reward_stops_the_run(tmp_path: Path, micro_model: Path) -> None:
    with pytest.raises(UserError, match=r"RewardFor returned nan for a sample of the problem 'story_train_0_\d+'"):
        iterate(tmp_path, micro_model, reward=RewardFor(float("nan")))


def test_a_separate_value_model_is_trained_with_the_policy(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, separate_value_model=True, batches=2)
    changed = {k.split(".")[1] for k, v in module.state_dict().items() if not torch.equal(v, recorder.before[k])}
    assert changed == {"lm", "value_trunk", "value_head"}
    assert torch.isfinite(recorder.rollouts[-1].values).all()


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


def test_mask_truncated_leaves_out_truncated_completions(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, mask_truncated=True)
    (rollout,) = recorder.rollouts
    for row, sample in enumerate(rollout.samples):
        assert bool(rollout.tokens.action_mask[row].any()) == (sample.completion.stop is StopReason.EOS)


def test_samples_without_a_reward_are_not_learned_from(tmp_path: Path, micro_model: Path) -> None:
    def for_even(completions: list[str], problems: list[Problem]) -> list[float | None]:
        return [None if int(p.id[-1]) % 2 else len(c) / 100 for c, p in zip(completions, problems, strict=True)]

    _, recorder = iterate(tmp_path, micro_model, reward=for_even)
    (rollout,), (statistics,) = recorder.rollouts, recorder.statistics
    even = [int(sample.problem.id[-1]) % 2 == 0 for sample in rollout.samples]
    assert rollout.tokens.action_mask.any(dim=1).tolist() == even
    lengths = [len(sample.text) / 100 for sample, kept in zip(rollout.samples, even, strict=True) if kept]
    assert statistics["rollout/reward"] == pytest.approx(sum(lengths) / len(lengths))
    assert statistics["rollout/unrewarded"] == 0.5


@pytest.mark.parametrize("advantages", [GAE(), Reinforce(whiten=True)])
def test_a_rollout_without_any_reward_changes_nothing(
    advantages: AdvantageEstimator, tmp_path: Path, micro_model: Path
) -> None:
    settings: dict[str, Any] = {"advantages": advantages, "reward": lambda completions: [None for _ in completions]}
    module, recorder = iterate(tmp_path, micro_model, **settings)
    (statistics,) = recorder.statistics
    assert statistics["rollout/reward"] == 0
    assert statistics["rollout/unrewarded"] == 1
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, recorder.before[name]), name


def test_the_kl_coefficient_adapts_and_is_saved(tmp_path: Path, micro_model: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, kl=KLPenalty(0.5, target=1e6), batches=2)
    assert [s["update/kl_coef"] for s in recorder.statistics] == pytest.approx([0.5, 0.49])
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["reft_kl_coef"] == pytest.approx(0.5 * 0.98**2)

"""Several samples per question: group estimators, filtered groups, and questions drawn to replace them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from reft_pl.reward.base import RewardFunction
from reft_pl.rl.estimators import GRPO, RLOO, MaxRL, Reinforce
from reft_pl.rl.kl import KLPenalty
from reft_pl.rl.policy_losses import PPOClip, SequenceClip
from reft_pl.types import Problem, Sample
from tests.modules.iteration import Recording, RewardFor, iterate


def test_samples_of_a_problem_are_adjacent(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, samples_per_problem=3)
    (rollout,) = recorder.rollouts
    ids = [sample.problem.id for sample in rollout.samples]
    assert ids == [problem for problem in dict.fromkeys(ids) for _ in range(3)]
    assert len({sample.completion.token_ids for sample in rollout.samples[:3]}) > 1


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


class RightFor(RewardFunction):
    """Return 1 or 0 by the parity of the sampled tokens, and always 0 for some problems."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        def known(problem: Problem) -> bool:
            return int(problem.id.rsplit("_", 1)[1]) % 2 == 0

        return [float(known(s.problem) and sum(s.completion.token_ids) % 2 == 0) for s in samples]


def test_groups_with_equal_outcomes_are_left_out_but_shown(tmp_path: Path, micro_model: Path) -> None:
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
def test_other_questions_replace_them_up_to_a_limit(max_resamples: int, tmp_path: Path, micro_model: Path) -> None:
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


def test_an_empty_filtered_rollout_changes_nothing(tmp_path: Path, micro_model: Path) -> None:
    settings = {"advantages": GRPO(), "samples_per_problem": 2, "filter_groups": True, "reward": RewardFor(0.0)}
    module, recorder = iterate(tmp_path, micro_model, **settings)
    assert recorder.statistics[0]["rollout/left_out"] == 1
    assert module.trainer.global_step == 0
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, recorder.before[name]), name

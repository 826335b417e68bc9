"""Log-probabilities of the sampler: compared with the scorer, used for importance weights, and in place of the scorer."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.rl.estimators import GAE, RLOO
from reft_pl.rl.kl import KLPenalty
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import Completion, SampleRequest
from tests.modules.iteration import Recorder, Recording, iterate


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_scorer_agree_on_logprobs(temperature: float, tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, temperature=temperature)
    (rollout,) = recorder.rollouts
    for row, sample in enumerate(rollout.samples):
        scored = rollout.logprobs[row][rollout.tokens.action_mask[row]]
        torch.testing.assert_close(scored, torch.tensor(sample.completion.logprobs), atol=1e-4, rtol=0)


class Misreporting(InProcessSampler):
    """Record each token's probability too low by a factor of e^shift, as a different engine might."""

    def __init__(self, shift: float, max_mismatch: float | None = None) -> None:
        super().__init__()
        self.shift = shift
        self.max_mismatch = max_mismatch

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        for completion in super().stream(requests):
            yield replace(completion, logprobs=tuple(logprob - self.shift for logprob in completion.logprobs))


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


@pytest.mark.parametrize("advantages", [RLOO(), GAE()])
def test_the_update_without_rescoring_is_the_same(advantages: RLOO | GAE, tmp_path: Path, micro_model: Path) -> None:
    settings: dict[str, Any] = {"advantages": advantages, "samples_per_problem": 2, "ppo_epochs": 2, "minibatch_size": 4}
    settings |= {"kl": KLPenalty(0.1, "k3", "loss"), "temperature": 1.3}

    def learned(rescore: bool) -> tuple[list[torch.Tensor], Recorder]:
        gradients: list[torch.Tensor] = []
        optimizer = partial(Recording, seen=gradients)
        _, recorder = iterate(tmp_path / str(rescore), micro_model, optimizer=optimizer, rescore=rescore, batches=2, **settings)
        return gradients, recorder

    (scored, with_scores), (unscored, without) = learned(True), learned(False)
    assert len(scored) == len(unscored) == 16
    for step, (a, b) in enumerate(zip(scored, unscored, strict=True)):
        assert (a - b).norm() < 1e-4 * a.norm(), f"step {step}"
    for rollout, other in zip(with_scores.rollouts, without.rollouts, strict=True):
        assert torch.equal(other.logprobs, other.sampler_logprobs)
        assert not torch.equal(rollout.logprobs, rollout.sampler_logprobs), "the scorer rounds differently, so it ran"
        assert torch.allclose(other.values, rollout.values, atol=1e-5)
    assert bool(without.rollouts[-1].values.any()) is advantages.uses_values, "the value head has learned something"
    figures = [recorder.statistics[0]["rollout/entropy"] for recorder in (with_scores, without)]
    assert figures[1] == pytest.approx(figures[0], rel=0.1), "estimated from the samples"

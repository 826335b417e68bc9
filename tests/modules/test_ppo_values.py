"""The value head's own learning rate, and value warm-up."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.modules import PPOModule
from reft_pl.rl.kl import KLPenalty
from reft_pl.strategies import ZeRO
from tests.modules.iteration import Weights, iterate


@pytest.mark.parametrize("separate", [False, True])
def test_while_values_warm_up_the_policy_is_fixed(separate: bool, tmp_path: Path, micro_model: Path) -> None:
    weights = Weights()
    _, recorder = iterate(
        tmp_path, micro_model, weights, batches=3, ppo_epochs=2, value_warmup=2, separate_value_model=separate,
        optimizer=lambda p: MasterAdamW(p, lr=1e-3, weight_decay=0.1),
    )  # fmt: skip
    assert weights.changed == [{"value"}, {"value"}, {"policy", "value"}]
    assert [statistics["update/policy_loss"] == 0 for statistics in recorder.statistics] == [True, True, False]
    assert all(statistics["update/value_loss"] > 0 for statistics in recorder.statistics)
    assert all(statistics["rollout/kl"] == pytest.approx(0, abs=1e-5) for statistics in recorder.statistics)


def test_the_value_head_warms_up_with_adapters(tmp_path: Path, micro_model: Path) -> None:
    start, _ = iterate(tmp_path / "start", micro_model)
    start.policy.lm.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_bytes((micro_model / name).read_bytes())
    weights = Weights()
    policy = PolicySettings(str(tmp_path / "model"), dtype="float32", lora=LoRASettings(r=2))
    iterate(tmp_path / "lora", micro_model, weights, policy=policy, batches=2, value_warmup=1)
    assert weights.changed == [{"value"}, {"policy", "value"}]


def test_the_value_head_has_its_own_learning_rate(tmp_path: Path, micro_model: Path) -> None:
    """With SGD, steps are proportional to rates."""
    moved: dict[float | None, dict[str, float]] = {}
    for rate in (None, 4e-2, 0.0):
        weights = Weights()
        optimizer = partial(torch.optim.SGD, lr=1e-2)
        iterate(tmp_path / str(rate), micro_model, weights, optimizer=optimizer, value_lr=rate, gradient_clip_norm=1e6)
        before, after = weights.seen
        moved[rate] = {
            part: sum(float((after[n] - before[n]).square().sum()) for n in before if (".value_" in n) is (part == "value"))
            ** 0.5
            for part in ("policy", "value")
        }
    assert moved[None]["value"] > 1e-4
    assert moved[4e-2]["value"] == pytest.approx(4 * moved[None]["value"], rel=1e-4)
    assert moved[0.0]["value"] == 0
    assert moved[4e-2]["policy"] == pytest.approx(moved[None]["policy"], rel=1e-4)


def test_warming_up_values_explain_the_returns(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, batches=4, ppo_epochs=4, value_warmup=4, value_lr=3e-2)
    losses = [statistics["update/value_loss"] for statistics in recorder.statistics]
    assert losses[-1] < 0.7 * losses[0]


def test_the_kl_coefficient_is_constant_while_the_policy_is_fixed(tmp_path: Path, micro_model: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, kl=KLPenalty(0.5, target=1e6), batches=3, value_warmup=2)
    assert [s["update/kl_coef"] for s in recorder.statistics] == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.parametrize("settings", [{"value_lr": 1e-3}, {"value_warmup": 1}])
def test_value_settings_are_refused_under_zero(settings: dict[str, Any], micro_model: Path) -> None:
    """ZeRO steps flat shards of all weights, so the optimizer state of a fixed group would change."""
    module = PPOModule(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"), **settings)
    module._trainer = SimpleNamespace(strategy=object.__new__(ZeRO))  # type: ignore[assignment]
    with pytest.raises(UserError, match="do not work under ZeRO"):
        module.parameter_groups()

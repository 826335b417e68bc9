"""A non-finite update is skipped and reported, and leaves weights, optimizer and schedule unchanged."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.stories.source import StorySource
from reft_pl.formats import PythonProgram
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule, SFTModule
from reft_pl.modules.policy_module import PolicyModule
from reft_pl.modules.schedule import Schedule
from reft_pl.reward.base import RewardFunction
from reft_pl.types import Sample

BAD = 1
"""Index of the poisoned update, of three."""

NAN, INF = float("nan"), float("inf")

Losses = Sequence[Callable[[], Tensor]]


class ByTokens(RewardFunction):
    """Rewards that differ between samples, so that updates are not zero."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [sum(sample.completion.token_ids) % 7 / 7 for sample in samples]


def poisoned_loss(value: float) -> Callable[[PolicyModule, Losses], Losses]:
    """Poison only the loss: adding a constant leaves all gradients finite."""

    def poison(module: PolicyModule, losses: Losses) -> Losses:
        first, *rest = losses
        return [lambda: first() + value, *rest]

    return poison


def poisoned_gradient(value: float) -> Callable[[PolicyModule, Losses], Losses]:
    """Poison one element of one gradient in the first micro-batch; the loss stays finite."""

    def poison(module: PolicyModule, losses: Losses) -> Losses:
        weight = next(module.policy.parameters())
        hook = weight.register_hook(lambda g: g.index_fill(0, torch.tensor([0]), value))
        first, second, *rest = losses

        def without_hook() -> Tensor:
            hook.remove()
            return second()

        return [first, without_hook, *rest]

    return poison


class Watch:
    """Wrap a module's ``update``: poison the second call, and record weights, optimizer and schedule before and after each.

    It also wraps ``log_statistics``, to count the skipped steps that are logged.
    """

    def __init__(self, module: PolicyModule, poison: Callable[[PolicyModule, Losses], Losses]) -> None:
        self.module = module
        self.poison = poison
        self.update = module.update
        self.states: list[dict[str, Any]] = []
        self.results: list[dict[str, float]] = []
        self.skipped_in_log = 0.0
        self.log_statistics = module.log_statistics
        module.update, module.log_statistics = self.watched_update, self.watched_log

    def watched_log(self, statistics: Mapping[str, float]) -> None:
        self.skipped_in_log += sum(value for name, value in statistics.items() if name.endswith("/skipped"))
        self.log_statistics(statistics)

    def watched_update(self, losses: Losses) -> dict[str, float]:
        self.states = self.states or [self.state()]
        self.results.append(self.update(self.poison(self.module, losses) if len(self.results) == BAD else losses))
        assert all(p.grad is None for p in self.module.parameters()), "no gradient waits for the next update"
        self.states.append(self.state())
        return self.results[-1]

    def state(self) -> dict[str, Any]:
        optimizer, scheduler = self.module.optimizers(), self.module.lr_schedulers()
        parts = {"weights": self.module, "optimizer": optimizer.optimizer, "schedule": scheduler}
        return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()} | {"step": self.module.global_step}


def flat(value: object, key: str = "") -> dict[str, object]:
    """Flatten a nested state, with tensors as bytes: equal means bitwise equal."""
    if isinstance(value, dict):
        return {k: v for name, child in value.items() for k, v in flat(child, f"{key}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, child in enumerate(value) for k, v in flat(child, f"{key}/{i}").items()}
    if isinstance(value, Tensor):
        return {key: value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()}
    return {key: value}


def three_updates(module_class: type[PolicyModule], poison: Any, dtype: str, folder: Path, micro_model: Path) -> Watch:
    """Run a good, a poisoned and a good update: on one rollout in PPO, on three batches in SFT."""
    own: dict[str, Any] = {"reward": ByTokens(), "ppo_epochs": 3} if module_class is PPOModule else {}
    module = module_class(
        PolicySettings(str(micro_model), from_scratch=True, dtype=dtype),
        optimizer=lambda parameters: MasterAdamW(parameters, lr=1e-2),
        schedule=Schedule("linear"),
        micro_batch_tokens=400,
        **own,
    )
    watch = Watch(module, poison)
    data = ReasoningDataModule(
        train=[StorySource("train", 6 if own else 18)], format=PythonProgram(), tokenizer=str(micro_model), batch_size=6,
        max_prompt_tokens=190, max_tokens=195 if own else 400, cache_dir=str(folder / "cache"),
    )  # fmt: skip
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, use_distributed_sampler=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return watch


@pytest.mark.parametrize(("module_class", "dtype"), [(PPOModule, "float32"), (SFTModule, "bfloat16")])
@pytest.mark.parametrize(
    ("poison", "loss", "norm"),
    [
        (poisoned_loss(NAN), "nan", "finite"),
        (poisoned_loss(INF), "inf", "finite"),
        (poisoned_loss(-INF), "-inf", "finite"),
        (poisoned_gradient(NAN), "finite", "nan"),
        (poisoned_gradient(INF), "finite", "inf"),
    ],
    ids=["loss-nan", "loss-inf", "loss-minus-inf", "gradient-nan", "gradient-inf"],
)
def test_a_non_finite_update_changes_nothing(
    module_class: type[PolicyModule], dtype: str, poison: Any, loss: str, norm: str, tmp_path: Path, micro_model: Path
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch = three_updates(module_class, poison, dtype, tmp_path, micro_model)
    start, good, bad, again = (flat(state) for state in watch.states)

    assert [result["skipped"] for result in watch.results] == [0, 1, 0]
    for name, expected in (("loss", loss), ("gradient_norm", norm)):
        value = watch.results[BAD][name]
        assert ("finite" if torch.isfinite(torch.tensor(value)) else str(value)) == expected, "the poison is what it says"
    assert good == bad, [key for key in good if good[key] != bad[key]]

    reports = [str(w.message) for w in caught if "skipped an optimizer step" in str(w.message)]
    assert len(reports) == 1
    assert str(watch.results[BAD]["loss"]) in reports[0]
    assert str(watch.results[BAD]["gradient_norm"]) in reports[0]
    assert watch.skipped_in_log == 1

    for before, after in ((start, good), (bad, again)):
        changed = {key.split("/")[1] for key in after if before.get(key) != after[key]}
        assert changed == {"weights", "optimizer", "schedule", "step"}
    assert all(torch.isfinite(weight).all() for weight in watch.states[-1]["weights"].values())
    assert again["/step"] == good["/step"] + 1 == 2

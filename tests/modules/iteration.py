"""One PPO iteration on a real Trainer and a model of a few thousand weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.stories.source import StorySource
from reft_pl.formats import PythonProgram
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule, RolloutCallback
from reft_pl.reward.base import RewardFunction
from reft_pl.types import Sample, ScoredRollout


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


class Weights(RolloutCallback):
    """Record the weights at the start and after each batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_rollout_end(self, trainer: Trainer, module: LightningModule, rollout: Any) -> None:
        if not self.seen:
            self.on_update_end(trainer, module, {})

    def on_update_end(self, trainer: Trainer, module: LightningModule, statistics: Any) -> None:
        self.seen.append({name: p.detach().clone() for name, p in module.named_parameters()})

    @property
    def changed(self) -> list[set[str]]:
        """Return which parts each batch changed: ``policy`` or ``value``."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return [
            {"value" if ".value_" in name else "policy" for name in before if not torch.equal(before[name], after[name])}
            for before, after in pairs
        ]


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

"""Stop a run at a given point, and compare it with an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reft_pl.cli import main

Overlay = Callable[..., str]

SIGNAL_AT = '''
import os

from reft_pl.modules.hooks import RolloutCallback
from reft_pl.reward.base import RewardFunction


class SignalAt(RolloutCallback):
    """Send this process a signal at the n-th call of a hook."""

    def __init__(self, hook: str, n: int = 1, signum: int = 15, times: int = 1, ranks: list[int] | None = None) -> None:
        self.hook, self.left, self.signum, self.times, self.ranks = hook, n, signum, times, ranks
        for name in ("on_train_batch_start", "on_train_batch_end", "on_validation_batch_start", "on_validation_end",
                     "on_train_epoch_end", "on_train_end", "on_fit_end", "on_test_batch_start", "on_predict_batch_start",
                     "on_sanity_check_start", "on_fit_start"):
            setattr(self, name, lambda trainer, *_, name=name, **__: self.came(trainer, name))

    def on_phase_start(self, trainer, module, phase, total):
        self.came(trainer, f"{'validation' if trainer.validating else 'training'} {phase}")

    def on_phase_progress(self, trainer, module, phase, done):
        self.came(trainer, f"{phase} progress")

    def came(self, trainer, hook):
        if hook == self.hook and (self.ranks is None or trainer.global_rank in self.ranks):
            self.left -= 1
            if self.left == 0:
                for _ in range(self.times):
                    os.kill(os.getpid(), self.signum)


class StopAt(RolloutCallback):
    """Stop training after a batch, like ``max_time`` and early stopping."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batch:
            trainer.should_stop = True


class Length(RewardFunction):
    def score(self, samples):
        return [len(sample.completion.token_ids) / 100 for sample in samples]
'''


def fit(stage: str, config: str, run_dir: Path, *more: str) -> int:
    return main(["fit", "--config", f"configs/{stage}.yaml", "--config", config, "--run_dir", str(run_dir), *more])


def last(run_dir: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks")


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, optimizer, schedule and best score are bitwise equal, and so is what was exported and logged."""
    one, other = last(a), last(b)
    for part in PARTS:
        assert flat(one[part]) == flat(other[part]), part
    axis = "/fit_loop/epoch_loop.state_dict/_batches_that_stepped"
    assert flat(one["loops"])[axis] == flat(other["loops"])[axis], "the curves' axis"
    assert (a / "hf" / "model.safetensors").read_bytes() == (b / "hf" / "model.safetensors").read_bytes()
    if (a / "rollouts.jsonl").exists():
        assert (a / "rollouts.jsonl").read_bytes() == (b / "rollouts.jsonl").read_bytes()


def flat(value: object, key: str = "") -> dict[str, object]:
    """Leaves of a nested structure; tensors as bytes."""
    if isinstance(value, dict):
        return {k: v for name, child in value.items() for k, v in flat(child, f"{key}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, child in enumerate(value) for k, v in flat(child, f"{key}/{i}").items()}
    if isinstance(value, torch.Tensor):
        return {key: value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()}
    return {key: value}

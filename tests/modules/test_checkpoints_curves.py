"""A killed and resumed run leaves the curves of an uninterrupted one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reft_pl.cli import main
from reft_pl.evaluation.report.scalars import read_curves
from reft_pl.modules.checkpoints import RunCheckpoints


class DeathError(Exception):
    """End a run like a kill: nothing more is saved."""


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read step and value of each point by tag, as TensorBoard does; timings without their value."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, 0.0 if "second" in tag else event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.mark.parametrize("stage", ["sft", "ppo"])
@pytest.mark.slow
def test_after_kills_each_point_occurs_once(
    stage: str, overlay: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill before the first checkpoint, after a periodic save, and after a save by validation."""
    moments: list[int] = []
    before = RunCheckpoints.on_train_batch_start

    def on_train_batch_start(self: Callback, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        before(self, trainer, module, batch, batch_idx)
        if moments and trainer.fit_loop.epoch_loop.total_batch_idx == moments[0]:
            raise DeathError(moments.pop(0))

    monkeypatch.setattr(RunCheckpoints, "on_train_batch_start", on_train_batch_start)

    def fit(run: str) -> int:
        trainer: dict[str, Any] = {"max_epochs": 3, "check_val_every_n_epoch": 2, "callbacks": None}
        config = overlay(run, trainer=trainer, checkpoints={"every_n_batches": 2})
        return main(["fit", "--config", f"configs/{stage}.yaml", "--config", config])

    assert fit("whole") == 0
    moments[:] = [1, 5, 7]
    while moments:
        with pytest.raises(DeathError):
            fit("killed")
        time.sleep(1)  # event files of one process differ, and are sorted, by their second
    assert fit("killed") == 0
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert len(list(killed.glob("*tfevents*"))) == 4
    assert points(killed) == points(whole)
    for tag, steps in points(killed).items():
        if tag != "epoch":  # Lightning's own: once with training, once with validation
            assert len({step for step, _ in steps}) == len(steps), tag
    assert [step for step, _ in points(killed)["lr"]] == list(range(9))
    assert [step for step, _ in points(killed)["val/top1"]] == ([5] if stage == "sft" else [0, 5])
    assert {tag: curve.batches for tag, curve in read_curves(killed).items()} == {
        tag: curve.batches for tag, curve in read_curves(whole).items()
    }

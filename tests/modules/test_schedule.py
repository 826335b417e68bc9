from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reft_pl.cli import main
from reft_pl.modules.schedule import Schedule


def test_linear_warmup_and_decay_by_hand() -> None:
    schedule = Schedule("linear", warmup=0.2)
    assert [schedule.factor(step, 10) for step in (0, 1, 2, 6, 9, 10, 11)] == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 0.125, 0, 0])


def test_constant_is_constant_after_its_warmup() -> None:
    assert {Schedule().factor(step, 5) for step in range(20)} == {1.0}
    assert [Schedule(warmup=0.5).factor(step, 4) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


def test_no_step_has_rate_zero() -> None:
    for warmup in (0.0, 0.1, 1.0):
        assert all(Schedule("linear", warmup).factor(step, 7) > 0 for step in range(7))


@pytest.mark.parametrize(
    ("stage", "max_epochs", "max_steps", "steps"),
    [("sft", 1, 1000, 3), ("sft", 5, 2, 2), ("ppo", 1, 1000, 6), ("ppo", 5, 4, 4), ("sft", -1, 2, 2)],
)
def test_the_rate_decays_until_whichever_limit_comes_first(
    stage: str, max_epochs: int, max_steps: int, steps: int, overlay: Callable[..., str], tmp_path: Path
) -> None:
    """Three batches per epoch; in PPO two optimizer steps per batch."""
    model: dict[str, Any] = {"schedule": {"kind": "linear", "warmup": 0.0, "epochs": None}} | (
        {"minibatch_size": 2} if stage == "ppo" else {}
    )
    trainer = {"max_epochs": max_epochs, "max_steps": max_steps, "callbacks": None, "num_sanity_val_steps": 0}
    config = overlay(stage, model={"init_args": model}, trainer=trainer, data={"validation": None})
    assert main(["fit", "--config", f"configs/{stage}.yaml", "--config", config]) == 0
    last = torch.load(tmp_path / stage / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == last["lr_schedulers"][0]["last_epoch"] == steps
    assert last["lr_schedulers"][0]["_last_lr"] == [0.0]

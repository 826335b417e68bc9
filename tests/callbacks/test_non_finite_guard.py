"""NonFiniteGuard in real runs of a tiny module."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from reft_pl_callbacks import NonFiniteGuard


@pytest.mark.parametrize("name", ["update/skipped", "train/skipped"])
def test_training_stops_after_the_limit_with_a_checkpoint(
    make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path, name: str
) -> None:
    module = tiny_module(skipped=lambda step: 2.0 if step in (0, 3, 4, 5, 6) else 0.0, skipped_name=name)
    checkpoints = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    trainer = make_trainer(NonFiniteGuard(limit=3), checkpoints, enable_checkpointing=True)
    with pytest.warns(UserWarning, match=r"in 3 training batches in a row \(4 in all\).*last checkpoint are good"):
        trainer.fit(module, loader)
    assert module.batches_trained == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "last.ckpt").exists()


def test_isolated_skips_do_not_stop_a_run(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    guard, module = NonFiniteGuard(limit=2), tiny_module(skipped=lambda step: float(step % 2))
    make_trainer(guard).fit(module, loader)
    assert len(module.batches_trained) == 8
    assert (guard.in_a_row, guard.total) == (1, 4)


def test_the_count_survives_a_resume(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    """One bad batch before the checkpoint and one after it are two in a row."""
    checkpoints = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    bad = {"skipped": lambda step: 1.0}
    make_trainer(NonFiniteGuard(2), checkpoints, enable_checkpointing=True, max_steps=1).fit(tiny_module(**bad), loader)
    resumed = tiny_module(**bad)
    with pytest.warns(UserWarning, match="in 2 training batches in a row"):
        make_trainer(NonFiniteGuard(2)).fit(resumed, loader, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.batches_trained == [1]

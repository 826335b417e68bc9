"""Export the current policy as a plain `transformers` folder during training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class Exports(Protocol):
    """The method that the callback calls on a module."""

    def export(self, folder: Path) -> None:
        """Write the current policy."""


class ExportHF(Callback):
    """Export the policy to ``<run_dir>/hf-step-N``, where N is the number of optimizer steps so far.

    Each folder loads like the run's own ``hf/``; use it to test the model during training, or to keep its history.
    Folders are written atomically.

    Args:
        every_n_batches: Export after every n training batches (rollouts in PPO); None exports after each validation instead.
        keep: Number of newest folders to keep; None keeps all.
    """

    def __init__(self, every_n_batches: int | None = None, keep: int | None = 2) -> None:
        self.every_n_batches = every_n_batches
        self.keep = keep

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Export after every n batches."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self.every_n_batches is not None and done % self.every_n_batches == 0:
            self._export(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export after a validation inside a fit."""
        if self.every_n_batches is None and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._export(trainer, pl_module)

    def _export(self, trainer: Trainer, module: LightningModule) -> None:
        root = Path(trainer.default_root_dir)
        folder = root / f"hf-step-{trainer.global_step}"
        aside = root / f".{folder.name}.partial"
        if trainer.is_global_zero:
            shutil.rmtree(aside, ignore_errors=True)  # left by a run killed during an export
        trainer.strategy.barrier()
        # Call on every rank: sharded weights are gathered from all of them.
        cast("Exports", module).export(aside)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            if folder.exists():  # a resumed run reaches the same step again
                shutil.rmtree(folder)
            aside.rename(folder)
            self._forget_old(root)

    def _forget_old(self, root: Path) -> None:
        if self.keep is None:
            return
        folders = [folder for folder in root.glob("hf-step-*") if folder.name.removeprefix("hf-step-").isdigit()]
        folders.sort(key=lambda folder: int(folder.name.removeprefix("hf-step-")))
        for folder in folders[: max(0, len(folders) - self.keep)]:
            shutil.rmtree(folder)

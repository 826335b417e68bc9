"""Where a run stands after a training batch, for a checkpoint that is written later with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import Trainer

from reft_pl.data.loader import ProblemLoader

VALIDATION_DUE = "reft_validation_due"


@dataclass(frozen=True)
class ResumePoint:
    """Progress of loops and data after a training batch.

    Args:
        batches: Training batches done.
        epoch: The epoch that these belong to, from 0.
        loops: State of Lightning's fit loop.
        loader: State of the training data.
        validation_due: Whether a validation follows before the next batch.
    """

    batches: int
    epoch: int
    loops: dict[str, Any]
    loader: dict[str, Any]
    validation_due: bool

    @classmethod
    def of(cls, trainer: Trainer, validation_due: bool) -> ResumePoint:
        """Where the trainer is now."""
        loop = trainer.fit_loop
        loader = cast("ProblemLoader[Any]", trainer.train_dataloader)
        batches = loop.epoch_loop.total_batch_idx + 1
        return cls(batches, trainer.current_epoch, loop.state_dict(), loader.state_dict(), validation_due)

    def write_into(self, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint resume here."""
        checkpoint["epoch"] = self.epoch
        checkpoint["loops"]["fit_loop"] = self.loops
        checkpoint["reft_loader"] = self.loader
        checkpoint[VALIDATION_DUE] = self.validation_due


def validate_now(trainer: Trainer) -> None:
    """Run the validation that an interruption cut off, before training resumes."""
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped = loop.total_batch_idx  # the axis of the curves
    loop.val_loop.restarting = False
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True

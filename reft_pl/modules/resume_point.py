"""Where a run stands after a training batch, for a checkpoint that is written later with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

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


def drop_points_from(trainer: Trainer, batch: int) -> None:
    """Take back what TensorBoard's files hold from training batch ``batch`` (from 0) on, for it is written once more.

    This is what ``purge_step`` does. That is given when the logger is made, which is before the checkpoint is read; reading
    it twice for the sake of its number would take long for a large model.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            writer = logger.experiment._get_file_writer()
            # A session's start counts as such only in files of this version or a later one.
            writer.add_event(Event(file_version="brain.Event:2"), step=batch)
            writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step=batch)

"""Progress of a run after a training batch, for checkpoints written later with the same weights."""

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
        epoch: Epoch of the last one, from 0.
        loops: State of Lightning's fit loop.
        loader: State of the training data loader.
        validation_due: Whether a validation follows before the next batch.
    """

    batches: int
    epoch: int
    loops: dict[str, Any]
    loader: dict[str, Any]
    validation_due: bool

    @classmethod
    def of(cls, trainer: Trainer, validation_due: bool) -> ResumePoint:
        """Capture the current progress of the trainer."""
        loop = trainer.fit_loop
        loader = cast("ProblemLoader[Any]", trainer.train_dataloader)
        batches = loop.epoch_loop.total_batch_idx + 1
        return cls(batches, trainer.current_epoch, loop.state_dict(), loader.state_dict(), validation_due)

    def write_into(self, checkpoint: dict[str, Any]) -> None:
        """Overwrite the progress in a checkpoint, so that it resumes here."""
        checkpoint["epoch"] = self.epoch
        checkpoint["loops"]["fit_loop"] = self.loops
        checkpoint["reft_loader"] = self.loader
        checkpoint[VALIDATION_DUE] = self.validation_due


def validate_now(trainer: Trainer) -> None:
    """Repeat the validation that an interruption cut off, before training resumes."""
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped = loop.total_batch_idx  # x-axis of the curves
    loop.val_loop.restarting = False
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True


def drop_points_from(trainer: Trainer, batch: int) -> None:
    """Rewind TensorBoard event files to training batch ``batch`` (from 0); the resumed run logs later points again.

    The logger's ``purge_step`` does the same, but must be set before the checkpoint is read. Reading a large checkpoint
    an extra time for its batch number takes too long.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            writer = logger.experiment._get_file_writer()
            # TensorBoard honours a session start only from this file version on.
            writer.add_event(Event(file_version="brain.Event:2"), step=batch)
            writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step=batch)

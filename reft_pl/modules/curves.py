"""Where the curves of a run that goes on from a checkpoint take up."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog


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

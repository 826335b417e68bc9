"""Let SIGINT and SIGTERM stop every verb cleanly, on all ranks that this process started."""

from __future__ import annotations

import signal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from reft_pl.interruption import interruption


class EndsOnSignals(Callback):
    """Reinstall our SIGTERM handler: Lightning's ends a run as if it were complete."""

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals in a fit."""
        interruption.install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals in a fit."""
        interruption.install()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals in a validation."""
        interruption.install()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals in a test."""
        interruption.install()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals while sampling."""
        interruption.install()


def end_started_ranks(trainer: Trainer) -> None:
    """Kill the ranks that this process started. Their work is on disk, or the same command repeats it."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(signal.SIGKILL)

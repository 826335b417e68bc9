"""Let SIGINT and SIGTERM stop every verb cleanly, on all ranks that this process started."""

from __future__ import annotations

import os
import signal
import subprocess

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
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
    """Kill the ranks that this process started. Their work is on disk, or the same command redoes it."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(signal.SIGKILL)


def take_requeue_signal(trainer: Trainer) -> None:
    """Handle Slurm's requeue signal, if the job has auto-requeue, in place of Lightning.

    Lightning would save a checkpoint at once, in the middle of an update, and later prefer it to every other.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal is not None:
        environment.auto_requeue = False
        interruption.requeue_signal = int(environment.requeue_signal)
        interruption.install()


def requeue() -> str:
    """Ask Slurm to queue this job again; return a report of the outcome."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return f"Slurm did not requeue job {job} (scontrol: {error.strerror}): submit it again"
    if done.returncode != 0:
        return f"Slurm did not requeue job {job} ({' '.join(done.stderr.split())}): submit it again"
    return f"Slurm has requeued job {job}"

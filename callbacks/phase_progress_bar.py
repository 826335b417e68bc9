"""A progress bar that shows the phase of an iteration: rollout, execute, score, update."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from time import perf_counter
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console

from reft_pl.escapes import escape
from reft_pl.modules.hooks import Phase, RolloutCallback

from .progress_state import PhaseState, ProgressState, Stage
from .progress_views import LineView, ProgressView, TerminalView


class PhaseProgressBar(ProgressBar, RolloutCallback):
    """Show the run, its current phase and rate, the time left, and the latest reward, accuracy and KL.

    A terminal gets bars; a file or pipe gets plain lines, one per iteration.

    Args:
        refresh_seconds: Time between redraws in a terminal.
        line_seconds: Minimum time between lines about training; the last batch and evaluations always get one.
    """

    def __init__(self, refresh_seconds: float = 0.2, line_seconds: float = 5.0) -> None:
        super().__init__()
        self.refresh_seconds = refresh_seconds
        self.line_seconds = line_seconds
        self.console: Console | None = None
        self.state = ProgressState()
        self._view: ProgressView | None = None
        self._enabled = True
        self._figures_read = float("-inf")

    def enable(self) -> None:
        """Show progress from here on."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing from here on; Lightning calls this on all ranks except the first."""
        self._enabled = False
        if self._view is not None:
            self._view.stop()

    @property
    def view(self) -> ProgressView:
        """The active view, created on first use because a console cannot be pickled for another process."""
        if self._view is None:
            console = self.console or Console()
            if console.is_terminal and not console.is_dumb_terminal:
                self._view = TerminalView(self.state, console, self.refresh_seconds)
            else:
                self._view = LineView(self.state, console, self.line_seconds)
        return self._view

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bars."""
        self.view.console.print(*(escape(str(arg)) for arg in args), markup=False, highlight=False, soft_wrap=True, **kwargs)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the terminal."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the terminal, so that the traceback appears below the bars."""
        self._close()

    # ---- training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record where a resumed run begins."""
        fraction = fit_fraction(trainer)
        self.state.run = Stage("training", fraction=fraction, first_fraction=fraction or 0.0)
        self._start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start a new iteration and clear its phases."""
        if self.state.run is not None:
            self.state.run.position = position(trainer, batch_idx)
        self.state.phases.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Finish an iteration."""
        if self.state.run is not None:
            self.state.run.fraction = fit_fraction(trainer)
        if perf_counter() - self._figures_read >= self.refresh_seconds:  # reading a metric synchronizes with the device
            self._figures_read = perf_counter()
            self.state.read_figures(trainer.callback_metrics)
        if self._enabled:
            self.view.batch_end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop drawing, and leave the last state on screen."""
        self._close()

    # ---- evaluation

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start before Lightning's sanity check."""
        self._start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a validation, inside a fit or standalone."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._evaluation_start(trainer, "sanity check" if trainer.sanity_checking else "validation", batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a test."""
        self._evaluation_start(trainer, "test", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start sampling."""
        self._evaluation_start(trainer, "prediction", trainer.num_predict_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance a validation by one batch."""
        self._evaluation_batch_end()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance a test by one batch."""
        self._evaluation_batch_end()

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance sampling by one batch."""
        self._evaluation_batch_end()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish a validation."""
        self._evaluation_end(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish a test."""
        self._evaluation_end(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish sampling."""
        self._evaluation_end(trainer)

    # ---- phases

    def on_phase_start(self, trainer: Trainer, module: LightningModule, phase: Phase, total: int) -> None:
        """Show the phase."""
        self.state.phases[phase] = self.state.current_phase = PhaseState(phase, total)

    def on_phase_progress(self, trainer: Trainer, module: LightningModule, phase: Phase, done: int) -> None:
        """Advance the bar of a phase."""
        self.state.phases[phase].done = done

    def on_phase_end(self, trainer: Trainer, module: LightningModule, phase: Phase, seconds: float) -> None:
        """Finish a phase; its bar stays until the next one begins, so that short phases are visible."""
        state = self.state.phases[phase]
        state.seconds = seconds
        if self._enabled:
            self.view.phase_end(state)

    def on_update_end(self, trainer: Trainer, module: LightningModule, statistics: Mapping[str, float]) -> None:
        """Show the latest figures."""
        self.state.read_figures(statistics)

    # ---- shared by the hooks

    def _start(self) -> None:
        if self._enabled:
            self.view.start()

    def _close(self) -> None:
        if self._view is not None:
            self._view.stop()

    def _evaluation_start(self, trainer: Trainer, name: str, batches: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self.state.run = None
            self.state.figures.clear()
        counts = batches if isinstance(batches, list) else [batches]
        self._batches_done, self._batches = 0, sum(counts)
        self.state.evaluation = Stage(name, fraction=0.0 if isfinite(self._batches) else None)
        self._start()

    def _evaluation_batch_end(self) -> None:
        self._batches_done += 1
        stage = self.state.evaluation
        if stage is None:
            return
        if isfinite(self._batches):
            stage.fraction = self._batches_done / self._batches
            stage.position = f"batch {self._batches_done}/{self._batches}"
        else:
            stage.position = f"batch {self._batches_done}"

    def _evaluation_end(self, trainer: Trainer) -> None:
        if not trainer.sanity_checking:
            self.state.read_figures(trainer.callback_metrics)
        if self._enabled and self.state.evaluation is not None:
            self.view.evaluation_end(self.state.evaluation)
        if trainer.state.fn == TrainerFn.FITTING:
            self.state.evaluation = self.state.current_phase = None
        else:
            self._close()


def fit_fraction(trainer: Trainer) -> float | None:
    """Return the completed fraction of a fit, by epochs or optimizer steps, whichever ends it first; None if neither does."""
    fractions = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and isfinite(trainer.num_training_batches):
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        fractions.append(batches / max(1, trainer.max_epochs * trainer.num_training_batches))
    if trainer.max_steps > 0:
        fractions.append(trainer.global_step / trainer.max_steps)
    return max(fractions, default=None)


def position(trainer: Trainer, batch_idx: int) -> str:
    """Format the position: ``epoch 2/3 batch 12/100``."""
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    epoch = f"epoch {trainer.current_epoch + 1}" + (f"/{epochs}" if epochs is not None and epochs > 0 else "")
    return f"{epoch} batch {batch_idx + 1}" + (f"/{batches:.0f}" if isfinite(batches) else "")

"""Save, resume and export runs: ``last.ckpt``, ``best.ckpt`` and ``hf/``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from reft_pl.data.loader import ProblemLoader
from reft_pl.errors import UserError
from reft_pl.evaluation.files import forget_test, update_results
from reft_pl.evaluation.model_card import write_card
from reft_pl.interruption import Interrupted, interruption
from reft_pl.models.export import read_description
from reft_pl.models.restricted_pickle import load_restricted
from reft_pl.modules.hooks import may_stop_within_a_batch
from reft_pl.modules.resume_point import VALIDATION_DUE, ResumePoint, drop_points_from, validate_now
from reft_pl.modules.stage_module import StageModule
from reft_pl.strategies.ranks import Ranks
from reft_pl.strategies.sharded_checkpoint import ADVICE, read_weights
from reft_pl.strategies.zero import whole_weights


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read only complete ones.

    Lightning's writer builds a second copy in memory and writes it to the system's temporary folder. Moving the file from
    there to another disk copies it once more.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save ``checkpoint`` at ``path`` atomically: write a temporary file beside it, then rename."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        former = path.with_name(f".{path.name}.old")
        if path.is_dir():  # from a strategy that saves one part per rank
            path.rename(former)
        aside.replace(path)
        shutil.rmtree(former, ignore_errors=True)
        for leftover in path.parent.glob(f".{path.name}.*"):  # from runs that were killed while saving
            if leftover.is_file():
                leftover.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read the checkpoint at ``path``.

        Raises:
            UserError: the file is damaged, refers to code, or is not a checkpoint of a run.
        """
        path = Path(path)
        if path.is_dir():
            return read_weights(path)
        checkpoint = load_restricted(path, ADVICE)
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
            raise UserError(f"{path} is not a checkpoint of a run: {ADVICE}")
        return checkpoint


def _known_figures(module: LightningModule) -> tuple[str, ...]:
    """Return what the module's validation logs; empty if a user's subclass overrides validation without declaring it."""
    for kind in type(module).__mro__:
        own = vars(kind)
        if "validation_figures" in own:
            return cast("tuple[str, ...]", own["validation_figures"])
        if {"validation_step", "on_validation_epoch_end", "on_validation_end"} & own.keys():
            return ()
    return ()


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation is scheduled after this training batch, even if training stops here."""
    loop, stop = trainer.fit_loop, trainer.should_stop
    trainer.should_stop = False
    try:
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
    finally:
        trainer.should_stop = stop


class RunCheckpoints(Checkpoint):
    """Keep ``checkpoints/last.ckpt`` for resuming and ``checkpoints/best.ckpt`` by validation; export the best to ``hf/``.

    Args:
        every_n_batches: Training batches (rollouts in PPO) between saves of ``last.ckpt``. Validations save it too.
        monitor: The validation metric that ``best.ckpt`` maximises; a metric that ends in ``loss`` is minimised.
    """

    def __init__(self, every_n_batches: int = 50, monitor: str = "val/top1") -> None:
        if every_n_batches < 1:
            raise UserError(f"checkpoints.every_n_batches is {every_n_batches}, but must be at least 1")
        if not monitor.strip():
            raise UserError("checkpoints.monitor is empty: set it to a validation metric, such as val/top1")
        self.every_n_batches = every_n_batches
        self.monitor = monitor
        self.best_score: float | None = None
        self.best_batch = 0
        self._saved_batch = 0
        self._loader_state: dict[str, Any] | None = None
        self._validation_due = False
        self._resume_point: ResumePoint | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module's validation logs the monitored metric.

        Raises:
            UserError: it does not.
        """
        figures = _known_figures(pl_module)
        if stage == "fit" and figures and self.monitor not in figures:
            raise UserError(
                f"checkpoints.monitor is {self.monitor!r}, but the validation of {type(pl_module).__name__} logs "
                f"{' and '.join(figures)}: set it to one of these"
            )

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """Return the folder of a run's checkpoints."""
        return Path(trainer.default_root_dir) / "checkpoints"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the position in the training data.

        Lightning saves it too, but does not restore it when it considers an epoch finished. This happens at the second resume
        of a run that validates in the middle of an epoch.
        """
        if trainer.train_dataloader is not None:  # None while the initial weights are validated
            checkpoint["reft_loader"] = cast("ProblemLoader[Any]", trainer.train_dataloader).state_dict()
        if trainer.interrupted and self._resume_point is not None:
            self._resume_point.write_into(checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the position in the training data; ``on_train_start`` restores it."""
        self._loader_state = checkpoint.get("reft_loader")
        self._validation_due = checkpoint.get(VALIDATION_DUE, False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the position in data and curves, and repeat a validation that was cut off.

        From here on, signals wait until the run can be saved.
        """
        interruption.deferred = True
        self._saved_batch = self._batch(trainer)
        if self._saved_batch:
            drop_points_from(trainer, self._saved_batch)
        if self._loader_state is not None:
            cast("ProblemLoader[Any]", trainer.train_dataloader).load_state_dict(self._loader_state)
            self._loader_state = None
        if self._validation_due:
            self._validation_due = False
            self._resume_point = ResumePoint.of(trainer, validation_due=True)
            validate_now(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the x-axis of the curves to finished batches; Lightning's own count is off by one after some resumes."""
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = loop.total_batch_idx

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every n batches and when training stops within an epoch, except just before a validation.

        A run resumed from such a save would skip the validation, and the validation saves anyway. A stop adds no validation:
        an extra one could choose a different best checkpoint.
        """
        due = validation_follows(trainer)
        if self._stops(trainer) and not due:
            trainer.fit_loop.epoch_loop._skip_next_val = True
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self._save_last(trainer)
        elif self._batch(trainer) % self.every_n_batches == 0 and not due and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_last(trainer)
        self._resume_point = ResumePoint.of(trainer, due)
        if not (due and self._stops(trainer)):  # a resumed run would not repeat the last validation
            self._end_if_asked(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal interrupt validation during a fit: validation changes neither weights nor optimizer."""
        if trainer.state.fn == TrainerFn.FITTING and interruption.deferred and may_stop_within_a_batch(trainer):
            interruption.deferred = self._stops(trainer)
            if not interruption.deferred:
                interruption.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save ``best.ckpt`` if the metric improved, then ``last.ckpt``.

        After a full validation before training (``trainer.num_sanity_val_steps: -1``) the initial weights are the first best.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.sanity_checking and trainer.num_sanity_val_steps != float("inf"):
            return
        if self.monitor not in trainer.callback_metrics:
            given = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise UserError(f"checkpoints.monitor is {self.monitor!r}, but validation logs {given}: set it to one of these")
        interruption.deferred = not trainer.sanity_checking
        score = float(trainer.callback_metrics[self.monitor])
        # A run that resumes in another folder has no best.ckpt there, whatever the checkpoint records.
        known = self.best_score is not None and self._has_best(trainer)
        sign = -1 if self.monitor.endswith("loss") else 1
        if not known or sign * score > sign * cast("float", self.best_score):
            self.best_score, self.best_batch = score, self._batch(trainer)
            self._save_best(trainer)
        if trainer.sanity_checking:
            for logger in trainer.loggers:
                logger.log_metrics({self.monitor: score}, step=0)
        else:
            self._save_last(trainer)
            self._resume_point = ResumePoint.of(trainer, validation_due=False)
            self._end_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what no validation saved; without validation the last weights are the best."""
        if not trainer.fast_dev_run and self._batch(trainer):  # type: ignore[attr-defined]
            # best.ckpt first: a run killed between the two saves resumes before its end and gets here again.
            if self.best_score is None or not self._has_best(trainer):
                self._save_best(trainer)
            if self._saved_batch != self._batch(trainer):
                self._save_last(trainer)
        self._resume_point = None  # everything is saved, and the export is atomic
        self._end_if_asked(trainer)
        interruption.deferred = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save ``last.ckpt`` when a signal stops the run, as of the last finished training batch."""
        if not isinstance(exception, Interrupted) or trainer.state.fn != TrainerFn.FITTING:
            return
        interruption.deferred = True
        point, last = self._resume_point, self.folder(trainer) / "last.ckpt"
        if point is not None and not trainer.fast_dev_run and (point.validation_due or point.batches != self._saved_batch):  # type: ignore[attr-defined]
            trainer.save_checkpoint(last)
        if not last.exists():
            exception.outcome = "no training batch is finished: the same command starts again"
        else:
            done = "training so far is" if point is None else f"{point.batches} training batches are"
            exception.outcome = f"{done} in {last}: the same command resumes there"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the best weights, export them to ``hf/``, and record the run's figures."""
        path = self.folder(trainer) / "best.ckpt"
        if trainer.fast_dev_run or not isinstance(pl_module, StageModule):  # type: ignore[attr-defined]
            return
        if self._batch(trainer) == 0 and not path.exists():
            return
        root = Path(trainer.default_root_dir)
        with whole_weights(trainer.strategy):  # sharded weights revert to the last ones afterwards
            if path.exists():  # if it was deleted, export the last weights
                best = load_restricted(path, "delete it and fit again", mmap=True)  # one copy in memory, not one per rank
                pl_module.load_state_dict(best["state_dict"], strict=pl_module.strict_loading)
            pl_module.export(root / "hf")
        if not trainer.is_global_zero:
            return
        figures = {"batches": self._batch(trainer), "epochs": trainer.current_epoch, "optimizer_steps": trainer.global_step}
        if self.best_score is not None:
            figures |= {"best": {self.monitor: self.best_score, "batch": self.best_batch}}  # type: ignore[dict-item]
        update_results(root, "fit", {**figures, "weights": read_description(root / "hf").get("weights")})
        write_card(root)

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric so far, which ``last.ckpt`` holds."""
        return {"best_score": self.best_score, "best_batch": self.best_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best metric so far."""
        self.best_score, self.best_batch = state_dict["best_score"], state_dict["best_batch"]

    @staticmethod
    def _stops(trainer: Trainer) -> bool:
        """Whether training ends after this batch: by ``max_steps``, or because a callback stopped it."""
        loop = trainer.fit_loop
        reached = 0 <= loop.max_steps <= loop.epoch_loop.global_step
        return reached or (trainer.should_stop and loop._can_stop_early)

    @staticmethod
    def _end_if_asked(trainer: Trainer) -> None:
        """Raise the pending signal on all ranks if it reached one of them."""
        interruption.signum = max(Ranks(trainer).gather(interruption.signum or 0)) or None
        interruption.check()

    def _batch(self, trainer: Trainer) -> int:
        return trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def _has_best(self, trainer: Trainer) -> bool:
        # Rank 0 decides: it may write the file before another rank looks.
        return Ranks(trainer).agree((self.folder(trainer) / "best.ckpt").exists())

    def _save_best(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            forget_test(Path(trainer.default_root_dir))
        trainer.save_checkpoint(self.folder(trainer) / "best.ckpt", weights_only=True)

    def _save_last(self, trainer: Trainer) -> None:
        self._saved_batch = self._batch(trainer)
        trainer.save_checkpoint(self.folder(trainer) / "last.ckpt")

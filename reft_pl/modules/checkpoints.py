"""When a run saves, what it resumes from, and what it leaves at its end."""

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
    """Writes a checkpoint beside its place and renames it, so that a kill never leaves half of one; reads none but whole ones.

    Lightning's own writer holds a second copy in memory and goes through the system's temporary folder, from where a move
    to another disk is a copy again.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save ``checkpoint`` at ``path``, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        former = path.with_name(f".{path.name}.old")
        if path.is_dir():  # of a strategy that saves the ranks' parts apart
            path.rename(former)
        aside.replace(path)
        shutil.rmtree(former, ignore_errors=True)
        for leftover in path.parent.glob(f".{path.name}.*"):  # of runs that were killed while saving
            if leftover.is_file():
                leftover.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read the checkpoint at ``path``.

        Raises:
            UserError: the file is damaged, names code, or is no checkpoint of a run.
        """
        path = Path(path)
        if path.is_dir():
            return read_weights(path)
        checkpoint = load_restricted(path, ADVICE)
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
            raise UserError(f"{path} is no checkpoint of a run: {ADVICE}")
        return checkpoint


def _known_figures(module: LightningModule) -> tuple[str, ...]:
    """What the module's validation logs; empty where a subclass of the user's validates otherwise without saying what."""
    for kind in type(module).__mro__:
        own = vars(kind)
        if "validation_figures" in own:
            return cast("tuple[str, ...]", own["validation_figures"])
        if {"validation_step", "on_validation_epoch_end", "on_validation_end"} & own.keys():
            return ()
    return ()


def validation_follows(trainer: Trainer) -> bool:
    """Whether the schedule of validations has one after this training batch; that training stops here does not count."""
    loop, stop = trainer.fit_loop, trainer.should_stop
    trainer.should_stop = False
    try:
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
    finally:
        trainer.should_stop = stop


class RunCheckpoints(Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` to resume from and ``checkpoints/best.ckpt`` by validation; exports the best to ``hf/``.

    Args:
        every_n_batches: Training batches (rollouts in PPO) between saves of ``last.ckpt``; validations save it too.
        monitor: The validation figure that ``best.ckpt`` maximises; ``val/loss`` is minimised.
    """

    def __init__(self, every_n_batches: int = 50, monitor: str = "val/top1") -> None:
        if every_n_batches < 1:
            raise UserError(f"checkpoints.every_n_batches is {every_n_batches}, but must be at least 1")
        if not monitor.strip():
            raise UserError("checkpoints.monitor is empty: name a figure of the validation, such as val/top1")
        self.every_n_batches = every_n_batches
        self.monitor = monitor
        self.best_score: float | None = None
        self.best_batch = 0
        self._saved_batch = 0
        self._loader_state: dict[str, Any] | None = None
        self._validation_due = False
        self._resume_point: ResumePoint | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a figure that the module's validation does not give.

        Raises:
            UserError: there is no such figure.
        """
        figures = _known_figures(pl_module)
        if stage == "fit" and figures and self.monitor not in figures:
            raise UserError(
                f"checkpoints.monitor is {self.monitor!r}, but the validation of {type(pl_module).__name__} gives "
                f"{' and '.join(figures)}: set it to one of these"
            )

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """Where a run keeps its checkpoints."""
        return Path(trainer.default_root_dir) / "checkpoints"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note where the training data stand.

        Lightning does so too, but does not restore it where it takes an epoch for finished, as after a second resume of a run
        that validates in the middle of epochs.
        """
        if trainer.train_dataloader is not None:  # there is none yet while the initial weights are validated
            checkpoint["reft_loader"] = cast("ProblemLoader[Any]", trainer.train_dataloader).state_dict()
        if trainer.interrupted and self._resume_point is not None:
            self._resume_point.write_into(checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember where the training data stood."""
        self._loader_state = checkpoint.get("reft_loader")
        self._validation_due = checkpoint.get(VALIDATION_DUE, False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume where the training data and the curves stood, with the validation that was cut off.

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
        """Keep the axis of the curves at training batches done; Lightning's own count slips by one after some resumes."""
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = loop.total_batch_idx

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every n batches and where training stops within an epoch, but not just before a validation.

        A run resumed from there would skip that validation; the save after it is as good. Where training stops, no validation
        is added that the run would not have without the stop: it could choose another best checkpoint.
        """
        due = validation_follows(trainer)
        if self._stops(trainer) and not due:
            trainer.fit_loop.epoch_loop._skip_next_val = True
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self._save_last(trainer)
        elif self._batch(trainer) % self.every_n_batches == 0 and not due and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_last(trainer)
        self._resume_point = ResumePoint.of(trainer, due)
        if not (due and self._stops(trainer)):  # the last validation of a run would not be made up for
            self._end_if_asked(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal interrupt the validation of a fit: it leaves weights and optimizer alone."""
        if trainer.state.fn == TrainerFn.FITTING and interruption.deferred and may_stop_within_a_batch(trainer):
            interruption.deferred = self._stops(trainer)
            if not interruption.deferred:
                interruption.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best so far, then the last.

        A whole validation before training (``trainer.num_sanity_val_steps: -1``) makes the initial weights the first best.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.sanity_checking and trainer.num_sanity_val_steps != float("inf"):
            return
        if self.monitor not in trainer.callback_metrics:
            given = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise UserError(f"checkpoints.monitor is {self.monitor!r}, but validation gives {given}: set it to one of these")
        interruption.deferred = not trainer.sanity_checking
        score = float(trainer.callback_metrics[self.monitor])
        # A run that goes on in another folder has no best there yet, whatever the checkpoint says.
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
        """Save what no validation saved; without any validation the last is the best."""
        if not trainer.fast_dev_run and self._batch(trainer):  # type: ignore[attr-defined]
            # The best first: a run that is killed between the two resumes before its end, and comes here again.
            if self.best_score is None or not self._has_best(trainer):
                self._save_best(trainer)
            if self._saved_batch != self._batch(trainer):
                self._save_last(trainer)
        self._resume_point = None  # all is saved, and the export is whole or absent
        self._end_if_asked(trainer)
        interruption.deferred = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save ``last.ckpt`` of a run that a signal stops, as of the last training batch that was done."""
        if not isinstance(exception, Interrupted) or trainer.state.fn != TrainerFn.FITTING:
            return
        interruption.deferred = True
        point, last = self._resume_point, self.folder(trainer) / "last.ckpt"
        if point is not None and not trainer.fast_dev_run and (point.validation_due or point.batches != self._saved_batch):  # type: ignore[attr-defined]
            trainer.save_checkpoint(last)
        if not last.exists():
            exception.outcome = "no training batch was done: the same command begins again"
        else:
            done = "training so far is" if point is None else f"{point.batches} training batches are"
            exception.outcome = f"{done} in {last}: the same command resumes there"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the best weights, write ``hf/`` and the run's figures."""
        path = self.folder(trainer) / "best.ckpt"
        if trainer.fast_dev_run or not isinstance(pl_module, StageModule):  # type: ignore[attr-defined]
            return
        if self._batch(trainer) == 0 and not path.exists():
            return
        root = Path(trainer.default_root_dir)
        with whole_weights(trainer.strategy):  # where weights are shared out, they are the last ones again after it
            if path.exists():  # else it was deleted since, and the last weights are the best that there are
                best = load_restricted(path, "delete it and fit again", mmap=True)  # once in memory, not once a rank
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
        """The best so far travels with ``last.ckpt``."""
        return {"best_score": self.best_score, "best_batch": self.best_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far."""
        self.best_score, self.best_batch = state_dict["best_score"], state_dict["best_batch"]

    @staticmethod
    def _stops(trainer: Trainer) -> bool:
        """Whether training ends after this batch, wherever in its epoch that is."""
        loop = trainer.fit_loop
        reached = 0 <= loop.max_steps <= loop.epoch_loop.global_step
        return reached or (trainer.should_stop and loop._can_stop_early)

    @staticmethod
    def _end_if_asked(trainer: Trainer) -> None:
        """End on all ranks what a signal to one of them asks to end."""
        interruption.signum = max(Ranks(trainer).gather(interruption.signum or 0)) or None
        interruption.check()

    def _batch(self, trainer: Trainer) -> int:
        return trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def _has_best(self, trainer: Trainer) -> bool:
        # As the first rank sees it: it may write the file before another one looks.
        return Ranks(trainer).agree((self.folder(trainer) / "best.ckpt").exists())

    def _save_best(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            forget_test(Path(trainer.default_root_dir))
        trainer.save_checkpoint(self.folder(trainer) / "best.ckpt", weights_only=True)

    def _save_last(self, trainer: Trainer) -> None:
        self._saved_batch = self._batch(trainer)
        trainer.save_checkpoint(self.folder(trainer) / "last.ckpt")

"""What every module of a run sees around it: its data, and the processes that work on it together."""

from __future__ import annotations

from typing import ClassVar, cast

from lightning.pytorch import LightningModule

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.modules.hooks import PhaseDispatcher
from reft_pl.strategies.ranks import Ranks


class RunModule(LightningModule):
    """Base of all modules here. Subclasses set ``seed`` and ``phases`` when they are made."""

    stage: ClassVar[str]
    """Names it in checkpoints, exports and seeds."""
    validation_figures: ClassVar[tuple[str, ...]] = ()
    """What its validation logs, for ``checkpoints.monitor``; empty if that is not known before the first validation."""
    seed: int
    phases: PhaseDispatcher

    @property
    def problems(self) -> ReasoningDataModule:
        """The data module of this run."""
        return cast("ReasoningDataModule", self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def ranks(self) -> Ranks:
        """The processes that work together."""
        return Ranks(self.trainer)

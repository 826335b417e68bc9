"""Base module: settings, data, phases and distributed ranks."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, cast

from lightning.pytorch import LightningModule

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.hooks import PhaseDispatcher
from reft_pl.strategies.ranks import Ranks


class RunModule(LightningModule):
    """Base of all modules.

    Args:
        policy: The model and its dtype.
        seed: Run seed, from which all randomness of this stage is derived.
    """

    stage: ClassVar[str]
    """Name of the stage in checkpoints, exports and seeds."""
    validation_figures: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics that validation logs, for ``checkpoints.monitor``; empty if unknown before the first validation."""

    def __init__(self, policy: PolicySettings, seed: int = 1) -> None:
        super().__init__()
        self.policy_settings = policy
        self.seed = seed
        self.phases = PhaseDispatcher(self)

    @property
    @abstractmethod
    def weights(self) -> str:
        """Digest of the current weights, which every figure in ``results.json`` names."""

    @property
    def problems(self) -> ReasoningDataModule:
        """The data module of this run."""
        return cast("ReasoningDataModule", self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def ranks(self) -> Ranks:
        """Collectives over the ranks of this run."""
        return Ranks(self.trainer)

"""Memory between the phases of an iteration: what a rollout leaves behind lies otherwise than what an update needs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer

from reft_pl.cli.allocator import give_freed_memory_back
from reft_pl.modules.hooks import Phase, RolloutCallback


class GivesFreedMemoryBack(RolloutCallback):
    """Where another phase begins than the one before, gives free pages back to the system."""

    def __init__(self) -> None:
        self._phase: Phase | None = None

    def on_phase_start(self, trainer: Trainer, module: LightningModule, phase: Phase, total: int) -> None:
        """Programs are executed while others are written: ``execute`` is part of the rollout."""
        if phase not in (self._phase, "execute"):
            self._phase = phase
            give_freed_memory_back()

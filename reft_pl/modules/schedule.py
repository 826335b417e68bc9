"""Learning-rate schedules of the paper: constant or linear, with warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reft_pl.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule over optimizer steps (paper, section 4.3).

    Args:
        kind: ``constant``, or ``linear`` decay to zero over the whole schedule.
        warmup: Share of the schedule in which the rate rises linearly from zero.
        epochs: Length of the schedule in passes over the training questions; None is the Trainer's ``max_epochs``. A run that
            stops after 2 epochs of a 40-epoch schedule sets ``epochs: 40`` and ``max_epochs: 2``.
    """

    kind: Literal["constant", "linear"] = "constant"
    warmup: float = 0.0
    epochs: float | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: ``warmup`` is not between 0 and 1, or ``epochs`` is not positive.
        """
        if not 0 <= self.warmup <= 1 or (self.epochs is not None and self.epochs <= 0):
            raise UserError("schedule.warmup must be between 0 and 1, and schedule.epochs positive: check model.schedule")

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor of the base learning rate at optimizer step ``step`` (from 0) of ``total_steps``."""
        warmup_steps = round(self.warmup * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if self.kind == "constant":
            return 1.0
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

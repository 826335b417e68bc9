"""Learning-rate schedules as the paper uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reft_pl.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves over optimizer steps (paper, section 4.3).

    Args:
        kind: ``constant``, or ``linear`` decay to zero over the whole schedule.
        warmup: Share of the schedule over which the rate first rises linearly from zero.
        epochs: Length of the schedule in passes over the training questions; None is the Trainer's ``max_epochs``. A warm-up
            that stops at epoch 2 *of a 40-epoch schedule* sets ``epochs: 40`` and ``max_epochs: 2``.
    """

    kind: Literal["constant", "linear"] = "constant"
    warmup: float = 0.0
    epochs: float | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: a share outside 0 to 1, or a length that is not positive.
        """
        if not 0 <= self.warmup <= 1 or (self.epochs is not None and self.epochs <= 0):
            raise UserError("schedule.warmup must lie between 0 and 1 and schedule.epochs be positive: check model.schedule")

    def factor(self, step: int, total_steps: int) -> float:
        """The factor on the base rate for optimizer step ``step`` (from 0) of a schedule of ``total_steps``."""
        warmup_steps = round(self.warmup * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if self.kind == "constant":
            return 1.0
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

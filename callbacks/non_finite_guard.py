"""Stops a run whose updates keep being skipped because they are not finite."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

SKIPPED = ("update/skipped", "train/skipped")
"""Where PPO and SFT log how many optimizer steps of a training batch were skipped."""


class NonFiniteGuard(Callback):
    """Counts training batches with a skipped optimizer step, and stops the run after too many in a row.

    The modules skip every step whose loss or gradient is not finite, so the weights are good whenever this stops a run, and
    so is the checkpoint that is written then. A skipped step now and then is harmless; one in every batch means that the run
    learns nothing any more.

    Args:
        limit: Training batches in a row with at least one skipped step after which the run stops.
    """

    def __init__(self, limit: int = 5) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.total = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge one training batch (a whole rollout with its updates in PPO)."""
        skipped = sum(float(trainer.callback_metrics.get(name, 0.0)) for name in SKIPPED)
        # Any rank's verdict is everyone's, or the others would wait for it forever.
        any_skipped = trainer.strategy.reduce_boolean_decision(skipped > 0, all=False)
        if not any_skipped:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.total += 1
        if self.in_a_row >= self.limit:
            trainer.should_stop = True
            rank_zero_warn(
                f"NonFiniteGuard stops the run: in {self.in_a_row} training batches in a row ({self.total} in all) a loss or "
                f"gradient was not finite. Those steps were skipped, so the weights and the last checkpoint are good; lower "
                f"the learning rate, or use a wider precision."
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"in_a_row": self.in_a_row, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]

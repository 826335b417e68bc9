"""Stop a run if its updates are repeatedly skipped because they are not finite."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

SKIPPED = ("update/skipped", "train/skipped")
"""Log keys of the number of skipped optimizer steps per training batch, in PPO and SFT."""


class NonFiniteGuard(Callback):
    """Count training batches with a skipped optimizer step, and stop the run after too many in a row.

    The modules skip every step with a non-finite loss or gradient, so the weights and the final checkpoint are good. An
    occasional skipped step is harmless; one in every batch means that the run no longer learns.

    Args:
        limit: Consecutive training batches with at least one skipped step after which the run stops.
    """

    def __init__(self, limit: int = 5) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.total = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check one training batch (in PPO, a whole rollout with its updates)."""
        skipped = sum(float(trainer.callback_metrics.get(name, 0.0)) for name in SKIPPED)
        # All ranks must decide alike, or they deadlock.
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
        """Return the counts for a resumed run."""
        return {"in_a_row": self.in_a_row, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]

"""Stop a run if the policy has drifted too far from its reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from reft_pl.modules.hooks import RolloutCallback


class KLGuard(RolloutCallback):
    """Monitor the mean KL per response to the frozen reference; stop the run or warn if it stays too high.

    A diverging KL signals a collapse: the policy has found text that earns reward but that the warm-up model would never
    write, or it writes no text at all. The run stops cleanly: it saves, and exports the best checkpoint by validation.

    Args:
        limit: Highest acceptable mean KL, in nats per response. At a KL coefficient of 0.01, 50 nats cost half the reward of a
            correct answer.
        patience: Consecutive iterations above the limit before the guard acts.
        action: Stop the run, or only warn (once each time the limit is exceeded).
    """

    def __init__(self, limit: float = 50.0, patience: int = 3, action: Literal["stop", "warn"] = "stop") -> None:
        self.limit = limit
        self.patience = patience
        self.action = action
        self.in_a_row = 0

    def on_update_end(self, trainer: Trainer, module: LightningModule, statistics: Mapping[str, float]) -> None:
        """Check one iteration by its mean KL over ranks, so that all ranks decide alike."""
        local = torch.tensor(statistics["rollout/kl"], device=module.device)
        kl = float(trainer.strategy.reduce(local, reduce_op="mean"))
        acceptable = kl <= self.limit  # false for NaN
        self.in_a_row = 0 if acceptable else self.in_a_row + 1
        if self.in_a_row < self.patience:
            return
        finding = (
            f"the mean KL to the reference was above {self.limit:g} nats a response for {self.in_a_row} iterations in a row "
            f"(now {kl:.3g})"
        )
        advice = "lower the learning rate or raise --model.kl.coef"
        if self.action == "stop":
            trainer.should_stop = True
            rank_zero_warn(f"KLGuard stops the run: {finding}. The best checkpoint is kept; {advice}.")
        elif self.in_a_row == self.patience:
            rank_zero_warn(f"KLGuard: {finding}; {advice}.")

    def state_dict(self) -> dict[str, Any]:
        """Return the count for a resumed run."""
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self.in_a_row = state_dict["in_a_row"]

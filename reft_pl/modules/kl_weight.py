"""The current weight of the KL penalty, which adapts to a target and survives a restart."""

from __future__ import annotations

from typing import Any

from reft_pl.rl.kl import KLPenalty


class KLWeight:
    """The weight of a KL penalty in the current iteration.

    Args:
        penalty: The penalty; its ``coef`` is the first weight.
    """

    def __init__(self, penalty: KLPenalty) -> None:
        self._penalty = penalty
        self.current = penalty.coef

    def adapt(self, kl: float, *, hold: bool) -> dict[str, float]:
        """Adapt the weight to the target KL, and return the weight used in this iteration by TensorBoard name.

        Args:
            kl: Mean KL of this iteration's rollout over all ranks, nats per response.
            hold: Keep the weight unchanged.
        """
        used = self.current
        if not hold:
            self.current = self._penalty.adapted(used, kl)
        return {"update/kl_coef": used}

    def mark(self, checkpoint: dict[str, Any]) -> None:
        """Write the weight to a checkpoint."""
        checkpoint["reft_kl_coef"] = self.current

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Restore the weight of a checkpoint. A fixed weight comes from the config instead."""
        if self._penalty.target is not None:
            self.current = checkpoint["reft_kl_coef"]

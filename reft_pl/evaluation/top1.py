"""Greedy Top-1 accuracy, accumulated over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from reft_pl.evaluation.intervals import wilson_interval


class Top1(Metric):
    """Share of problems with a correct greedy answer (fraction, 0 to 1)."""

    full_state_update = False
    higher_is_better = True
    correct: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: Sequence[bool]) -> None:
        """Add one verdict per problem."""
        self.correct += sum(correct)
        self.total += len(correct)

    def compute(self) -> Tensor:
        """Return the accuracy since the last reset; 0 if nothing was added."""
        return self.correct / self.total.clamp(min=1)

    def summary(self) -> dict[str, float | int | list[float]]:
        """Return accuracy, count and 95% Wilson interval, for ``results.json``."""
        correct, total = int(self.correct), int(self.total)
        return {"top1": correct / max(1, total), "n": total, "interval95": list(wilson_interval(correct, total))}

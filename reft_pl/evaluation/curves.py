"""Accuracy against the number of samples, over questions and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from reft_pl.data.sample_file import SampledQuestion
from reft_pl.evaluation.at_k import pass_at_k, powers_of_two, rerank_at, voting_at, weighted_vote
from reft_pl.evaluation.intervals import mean_interval


def sampling_figures(item: SampledQuestion) -> dict[str, float]:
    """``pass@k`` and ``voting@k`` of one question, for k = 1, 2, 4, ... n; ``pass@n`` is the upper bound of any choice."""
    answers, verdicts = item.answers, item.verdicts
    ks = powers_of_two(len(answers))
    passed = {f"pass@{k}": pass_at_k(verdicts, k) for k in ks}
    voted = {f"voting@{k}": value for k, value in zip(ks, voting_at(answers, verdicts, ks), strict=True)}
    return passed | voted


def reranking_figures(item: SampledQuestion, scores: Sequence[float]) -> dict[str, float]:
    """``rerank@k`` of one question, for k = 1, 2, 4, ... n, and ``weighted@n``, the vote by sums of scores."""
    answers, verdicts = item.answers, item.verdicts
    ks = powers_of_two(len(answers))
    ranked = {f"rerank@{k}": value for k, value in zip(ks, rerank_at(scores, answers, verdicts, ks), strict=True)}
    return ranked | {f"weighted@{len(answers)}": float(weighted_vote(scores, answers, verdicts))}


class PerQuestion(Metric):
    """Means over questions of several figures in [0, 1], with their intervals; each rank brings its own questions."""

    full_state_update = False
    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")
        self.names: tuple[str, ...] = ()

    def update(self, figures: Mapping[str, float]) -> None:
        """Add one question; every question brings the same figures.

        Raises:
            ValueError: it brings others than those before.
        """
        if self.names and self.names != tuple(figures):
            raise ValueError(f"figures of one question are {tuple(figures)}, those of another {self.names}")
        self.names = tuple(figures)
        self.values.append(torch.tensor([list(figures.values())], dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """[F] means in the order of ``names``; empty when there were no questions."""
        return dim_zero_cat(self.values).mean(0) if self.values else torch.zeros(0, dtype=torch.float64)

    def reset(self) -> None:
        """Forget all questions, and which figures they had."""
        super().reset()
        self.names = ()

    def summary(self) -> dict[str, list[float]]:
        """Mean and 95% interval of each figure: ``{name: [mean, low, high]}``, for ``results.json``."""
        table = dim_zero_cat(self.values).T.tolist() if self.values else []
        return {name: list(mean_interval(column)) for name, column in zip(self.names, table, strict=True)}

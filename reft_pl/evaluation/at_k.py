"""Compute pass@k, voting@k and rerank@k of one question, in expectation over all k-subsets of its n samples.

An *answer* is the executed result of a sample, None if it is not of the question's kind. A sample without an answer has no
vote and cannot be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb, fsum

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from reft_pl.data.sample_file import SampledQuestion
from reft_pl.evaluation.intervals import mean_interval
from reft_pl.formats.answers import votes
from reft_pl.types import Answer

MAX_SAMPLES = 1000
"""Above this, binomial coefficients overflow float64."""


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """Return the probability that at least one of k samples is correct: ``1 - C(n - c, k) / C(n, k)``.

    Args:
        correct: [n] verdicts.
        k: 1 to n.

    Source: Chen et al. 2021, equation 1.
    """
    n = _checked(len(correct), k)
    return 1 - comb(n - sum(correct), k) / comb(n, k)


def voting_at(answers: Sequence[Answer | None], correct: Sequence[bool], ks: Sequence[int]) -> list[float]:
    """Return voting@k: the probability that the most common answer among k samples is correct, for each k.

    Ties are shared: each of t equally common answers is chosen with probability 1 / t. This equals taking the first one
    sampled when all orders are equally likely. ``formats.answers.votes`` groups all n samples once, so every subset shares the
    groups and the expectation is exact. A group is correct if its representative is.

    To count the k-subsets in which an answer has j votes and t rivals tie with it, multiply one small polynomial per rival
    group. Groups with fewer than j samples cannot tie and count like samples without an answer.

    Args:
        answers: [n] executed answers.
        correct: [n] verdicts.
        ks: Numbers of samples, each 1 to n.
    """
    n = len(answers)
    for k in ks:
        _checked(n, k)
    groups = votes(answers)
    wins = np.zeros(len(ks))
    for index, group in enumerate(groups):
        if not correct[group[0]]:
            continue
        others = [len(other) for place, other in enumerate(groups) if place != index]
        for count in range(1, len(group) + 1):
            ways = comb(len(group), count) * _ways_to_be_outvoted(n - len(group), others, count)
            wins += [ways[k - count] if 0 <= k - count < len(ways) else 0.0 for k in ks]
    return [float(win / comb(n, k)) for win, k in zip(wins, ks, strict=True)]


def _ways_to_be_outvoted(n_others: int, sizes: Sequence[int], votes: int) -> np.ndarray:
    """Return the weighted number of ways to draw s other samples so that no answer exceeds ``votes``, for each s.

    A way with t ties has weight 1 / (1 + t). Returns [n_others + 1] weights.
    """
    rivals = [size for size in sizes if size >= votes]
    ways = np.zeros((len(rivals) + 1, n_others + 1))  # by number of ties and samples drawn
    free = n_others - sum(rivals)
    ways[0, : free + 1] = [comb(free, s) for s in range(free + 1)]
    for size in rivals:
        after = ways.copy()  # none of this group drawn
        for drawn in range(1, votes):
            after[:, drawn:] += comb(size, drawn) * ways[:, :-drawn]
        after[1:, votes:] += comb(size, votes) * ways[:-1, :-votes]
        ways = after
    shared: np.ndarray = (ways / (1 + np.arange(len(rivals) + 1))[:, None]).sum(0)
    return shared


def rerank_at(
    scores: Sequence[float], answers: Sequence[Answer | None], correct: Sequence[bool], ks: Sequence[int]
) -> list[float]:
    """Return rerank@k: the probability that the best-scored sample with an answer among k samples is correct, for each k.

    The sample of rank r (from 0) among samples with an answer is chosen in ``C(n - r - 1, k - 1)`` subsets: the ones that hold
    it and nothing ranked before it. Of equal scores, the earlier sample ranks first.

    Args:
        scores: [n] the reranker's probabilities of being correct.
        answers: [n] executed answers.
        correct: [n] verdicts.
        ks: Numbers of samples, each 1 to n.
    """
    n = len(scores)
    for k in ks:
        _checked(n, k)
    ranked = sorted((i for i in range(n) if answers[i] is not None), key=lambda i: -scores[i])
    ranks = [rank for rank, i in enumerate(ranked) if correct[i]]
    return [sum(comb(n - rank - 1, k - 1) for rank in ranks) / comb(n, k) for k in ks]


def weighted_vote(scores: Sequence[float], answers: Sequence[Answer | None], correct: Sequence[bool]) -> bool:
    """Return whether the answer with the largest sum of scores over all n samples is correct; ties go to the first sampled.

    Samples in one group of ``formats.answers.votes`` add their scores; the group's representative decides correctness.
    """
    groups = sorted(votes(answers), key=min)
    chosen = max(groups, key=lambda group: fsum(scores[index] for index in group), default=None)
    return chosen is not None and correct[chosen[0]]


def tie_break_vote(scores: Sequence[float], answers: Sequence[Answer | None], correct: Sequence[bool]) -> bool:
    """Return whether the most common answer is correct; of equally common ones, the one with the largest sum of scores counts.

    Groups and representatives are those of ``weighted_vote``; if the sums tie too, the answer sampled first counts.
    """
    groups = sorted(votes(answers), key=min)
    chosen = max(groups, key=lambda group: (len(group), fsum(scores[index] for index in group)), default=None)
    return chosen is not None and correct[chosen[0]]


def powers_of_two(n: int) -> list[int]:
    """Return 1, 2, 4, ... up to n, and n."""
    return sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})


def _checked(n: int, k: int) -> int:
    if not 1 <= k <= n <= MAX_SAMPLES:
        raise ValueError(f"k={k} of n={n} samples: k must lie between 1 and n, and n be at most {MAX_SAMPLES}")
    return n


def sampling_figures(item: SampledQuestion) -> dict[str, float]:
    """Return ``pass@k`` and ``voting@k`` of one question for k = 1, 2, 4, ... n; ``pass@n`` bounds every selection method."""
    answers, verdicts = item.answers, item.verdicts
    ks = powers_of_two(len(answers))
    passed = {f"pass@{k}": pass_at_k(verdicts, k) for k in ks}
    voted = {f"voting@{k}": value for k, value in zip(ks, voting_at(answers, verdicts, ks), strict=True)}
    return passed | voted


def reranking_figures(item: SampledQuestion, scores: Sequence[float]) -> dict[str, float]:
    """Return ``rerank@k`` of one question for k = 1, 2, 4, ... n, and two votes over all n samples.

    ``weighted@n`` weights the votes by scores, ``tie_break@n`` only breaks ties with them.
    """
    answers, verdicts = item.answers, item.verdicts
    ks = powers_of_two(len(answers))
    ranked = {f"rerank@{k}": value for k, value in zip(ks, rerank_at(scores, answers, verdicts, ks), strict=True)}
    n, votes_of_all = len(answers), {"weighted": weighted_vote, "tie_break": tie_break_vote}
    return ranked | {f"{name}@{n}": float(vote(scores, answers, verdicts)) for name, vote in votes_of_all.items()}


class PerQuestion(Metric):
    """Average per-question figures in [0, 1] over all ranks, with 95% intervals; each rank adds its own questions."""

    full_state_update = False
    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")
        self.names: tuple[str, ...] = ()

    def update(self, figures: Mapping[str, float]) -> None:
        """Add one question.

        Raises:
            ValueError: Its figures differ in name from the ones before.
        """
        if self.names and self.names != tuple(figures):
            raise ValueError(f"figures of one question are {tuple(figures)}, those of another {self.names}")
        self.names = tuple(figures)
        self.values.append(torch.tensor([list(figures.values())], dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """Return [F] means in the order of ``names``; empty if there were no questions."""
        return dim_zero_cat(self.values).mean(0) if self.values else torch.zeros(0, dtype=torch.float64)

    def reset(self) -> None:
        """Clear all questions and the names of their figures."""
        super().reset()
        self.names = ()

    def summary(self) -> dict[str, list[float]]:
        """Return mean and 95% interval of each figure for ``results.json``: ``{name: [mean, low, high]}``."""
        table = dim_zero_cat(self.values).T.tolist() if self.values else []
        return {name: list(mean_interval(column)) for name, column in zip(self.names, table, strict=True)}

"""What k samples of a question are worth: pass@k, voting, reranking, each in expectation over which k of the n they are.

All functions speak of one question and n samples of it. An *answer* is what executing a sample gave, None where that was
nothing of the question's kind; a sample without an answer has no vote and cannot be chosen.
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
"""Beyond it binomial coefficients leave the range of float64."""


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """Probability that at least one of k samples is right: ``1 - C(n - c, k) / C(n, k)`` (Chen et al. 2021, equation 1).

    Args:
        correct: [n] verdicts.
        k: 1 to n.
    """
    n = _checked(len(correct), k)
    return 1 - comb(n - sum(correct), k) / comb(n, k)


def voting_at(answers: Sequence[Answer | None], correct: Sequence[bool], ks: Sequence[int]) -> list[float]:
    """Voting@k: probability that the most common answer among k samples is right, for each k.

    Ties are shared: of t answers that are equally common each is taken with probability 1 / t, which is what "the first one
    sampled" comes to when all orders are equally likely. ``formats.answers.votes`` forms the groups, once over all n samples:
    in each subset the same samples are one vote, so the expectation is exact. A group is correct if its representative is.

    With ``c`` the size of an answer's group, the number of k-subsets in which it has j votes and t others have as many is a
    coefficient of a product of one small polynomial a rival group; groups of fewer than j samples cannot rival it and count
    like samples without an answer.

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
    """[n_others + 1]: of the ways to draw s other samples, those in which nobody has over ``votes``, each over 1 + its ties."""
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
    """Rerank@k: probability that the best-scored sample with an answer among k samples is right, for each k.

    The sample of rank r (from 0) among those with an answer is the choice of ``C(n - r - 1, k - 1)`` subsets: those that hold
    it and nothing ranked before it. Of equal scores the sample that stands first ranks first.

    Args:
        scores: [n] probabilities of being right, as the reranker sees it.
        answers: [n] executed answers.
        correct: [n] verdicts.
        ks: Numbers of samples, each 1 to n.
    """
    n = len(scores)
    for k in ks:
        _checked(n, k)
    ranked = sorted((i for i in range(n) if answers[i] is not None), key=lambda i: -scores[i])
    right = [rank for rank, i in enumerate(ranked) if correct[i]]
    return [sum(comb(n - rank - 1, k - 1) for rank in right) / comb(n, k) for k in ks]


def weighted_vote(scores: Sequence[float], answers: Sequence[Answer | None], correct: Sequence[bool]) -> bool:
    """Whether the answer with the largest sum of scores over all n samples is right; of equal sums the first sampled.

    Samples of one group of ``formats.answers.votes`` add their scores, and its representative decides whether it is correct.
    """
    groups = sorted(votes(answers), key=min)
    chosen = max(groups, key=lambda group: fsum(scores[index] for index in group), default=None)
    return chosen is not None and correct[chosen[0]]


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    return sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})


def _checked(n: int, k: int) -> int:
    if not 1 <= k <= n <= MAX_SAMPLES:
        raise ValueError(f"k={k} of n={n} samples: k must lie between 1 and n, and n be at most {MAX_SAMPLES}")
    return n


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

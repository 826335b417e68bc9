"""Score the solutions of a question with a reranker, and measure how good the scores are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

import torch
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from reft_pl.data.codec import Codec
from reft_pl.models.reranker import Reranker
from reft_pl.types import Problem


def solution_scores(
    reranker: Reranker, codec: Codec, problem: Problem, solutions: Sequence[str], max_tokens: int
) -> list[float]:
    """Return the score of each solution, [n]: the probability that it is correct. Equal texts have equal scores.

    Args:
        reranker: The classifier; this sets it to eval mode.
        codec: The prompt format that the classifier was trained with.
        problem: The question.
        solutions: n whole responses.
        max_tokens: Upper bound of a micro-batch: rows times the longest row.
    """
    texts = list(dict.fromkeys(solutions))
    probabilities = reranker.probabilities(codec.joint_ids(problem, texts), max_tokens)
    of_text = dict(zip(texts, probabilities, strict=True))
    return [of_text[text] for text in solutions]


def in_group_auc(questions: Iterable[tuple[Sequence[float], Sequence[bool]]]) -> float:
    """Return the probability that a correct sample of a question scores above a wrong one, averaged over questions.

    Ties count half. A question with only correct or only wrong samples has nothing to order and is left out; if none is left,
    the result is 0.5.

    Args:
        questions: Scores and verdicts of the samples of each question.
    """
    areas = [
        float(binary_auroc(torch.tensor(scores), torch.tensor(correct).long()))
        for scores, correct in questions
        if len(set(correct)) == 2
    ]
    return fmean(areas) if areas else 0.5


def calibration_error(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Return the expected calibration error in ten bins: the mean gap between a score and how often it is correct.

    Source: Guo et al. 2017 (arXiv 1706.04599), eq. 3.

    Args:
        scores: Probabilities of being correct, [N].
        correct: Verdicts, [N].
    """
    return float(binary_calibration_error(torch.tensor(scores), torch.tensor(correct).long(), n_bins=10, norm="l1"))

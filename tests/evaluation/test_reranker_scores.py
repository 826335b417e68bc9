"""Scores of solutions, and how their order and calibration are measured."""

from pathlib import Path

import pytest
import torch

from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.evaluation.reranker_scores import calibration_error, in_group_auc, solution_scores
from reft_pl.formats import NaturalLanguage
from reft_pl.models.classifier import load_classifier
from reft_pl.models.reranker import Reranker
from reft_pl.types import Problem


def test_auc_compares_the_samples_of_one_question() -> None:
    # Question 1: of the pairs (correct, wrong) one is in order, one is not, two are ties: (1 + 0 + 2 / 2) / 4.
    mixed = ([0.9, 0.1, 0.9, 0.1], [True, True, False, False])
    assert in_group_auc([mixed]) == pytest.approx(0.5)
    in_order = ([0.2, 0.1], [True, False])
    assert in_group_auc([mixed, in_order]) == pytest.approx(0.75)
    # Between questions no scores are compared, and a question with one kind of sample has no pair.
    assert in_group_auc([in_order, ([0.9, 0.8], [False, False])]) == 1.0
    assert in_group_auc([([0.3], [True])]) == 0.5


def test_calibration_error_by_hand() -> None:
    # Two bins: scores of 0.95 that are correct half the time, scores of 0.25 that never are.
    scores, correct = [0.95, 0.95, 0.25, 0.25], [True, False, False, False]
    assert calibration_error(scores, correct) == pytest.approx((0.45 + 0.25) / 2, abs=1e-6)
    assert calibration_error([1.0, 0.0], [True, False]) == pytest.approx(0.0, abs=1e-6)


def test_equal_texts_have_equal_scores_and_micro_batches_do_not_matter(micro_model: Path, tmp_path: Path) -> None:
    from reft_pl.models.loading import load_policy
    from reft_pl.models.settings import PolicySettings

    lm = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32")).lm
    lm.save_pretrained(tmp_path / "lm")
    tokenizer = load_tokenizer(str(micro_model))
    tokenizer.save_pretrained(tmp_path / "lm")
    reranker = Reranker(load_classifier(str(tmp_path / "lm"), torch.float32, seed=1))
    codec = Codec(tokenizer, NaturalLanguage(), 100, 120)
    problem, texts = Problem("q", "How many?", None), ["It is one.", "It is one and two and three.", "It is one."]
    scores = solution_scores(reranker, codec, problem, texts, 1000)
    assert scores[0] == scores[2] != scores[1]
    assert all(0 < score < 1 for score in scores)
    assert solution_scores(reranker, codec, problem, texts, 1) == pytest.approx(scores, abs=1e-6)
    alone = reranker(codec.joint_ids(problem, texts[:1])).softmax(-1)[0, 1].item()
    assert scores[0] == pytest.approx(alone, abs=1e-6)

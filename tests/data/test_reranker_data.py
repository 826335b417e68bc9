"""The distinct solutions that a reranker learns from."""

from reft_pl.data.reranker_data import candidates
from reft_pl.data.sample_file import Prediction, SampledQuestion


def test_candidates_are_distinct_solutions() -> None:
    same = Prediction("def solution():\n    return 1", 1.0, True)
    found = candidates([SampledQuestion("q", "?", 1.0, (same, same, Prediction("x", None, False)))])
    assert [(c.text, c.correct) for c in found] == [(same.text, True), ("x", False)]

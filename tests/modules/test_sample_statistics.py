"""Sample statistics against hand-computed values."""

import pytest
import torch

from reft_pl.modules.sample_statistics import sample_statistics
from reft_pl.types import Answer, Completion, ExecutionResult, Problem, Rollout, Sample, Status, StopReason, TokenBatch


def sample(question: str, gold: Answer, text: str, value: Answer | None, backend: str = "cpython", tokens: int = 4) -> Sample:
    stop = StopReason.EOS if tokens == 4 else StopReason.LENGTH
    completion = Completion("q", 0, (1,) * tokens, (0.0,) * tokens, stop)
    status = Status.SYNTAX_ERROR if value is None else Status.OK
    return Sample(Problem("q", question, gold), completion, text, ExecutionResult(status, value, backend=backend))


def rollout(samples: list[Sample], outcome: list[float], left_out: Rollout | None = None) -> Rollout:
    empty = torch.zeros(len(samples), 1)
    tokens = TokenBatch(empty.long(), empty.bool(), empty.bool())
    return Rollout(tuple(samples), tokens, torch.tensor(outcome), left_out=left_out)


def shares(found: Rollout) -> dict[str, float]:
    """Reduce the parts of a single rank to means."""
    return {name: total / n for name, (total, n) in sample_statistics(found).items() if n}


def test_all_samples_count_in_the_shares() -> None:
    computed = sample("4 boxes of 12", 48.0, "def solution():\n    return 4 * 12", 48.0)
    copied = sample("He has 12.", 12.0, "def solution():\n    return 12", 12.0, tokens=6)
    wrong = sample("4 boxes of 12", 48.0, "def solution():\n    return 12", 12.0)
    none = sample("?", 1.0, "def", None)
    left_out = rollout([wrong, none], [0.1, 0.0])
    statistics = shares(rollout([computed, copied], [1.0, 1.0], left_out))
    expected = {
        "rollout/reward": 2.1 / 4,
        "rollout/accuracy": 0.5,
        "rollout/left_out": 0.5,
        "rollout/response_tokens": 4.5,
        "rollout/truncated": 0.25,
        "status/ok": 0.75,
        "status/syntax_error": 0.25,
        "shortcut/in_question": 0.5,
        "shortcut/constant": 0.5,
    }
    assert {name: statistics[name] for name in expected} == pytest.approx(expected)
    assert "shortcut/letter" not in statistics


def test_letters_that_follow_from_another_value() -> None:
    question = "How much?\na ) 38 , b ) 27 , c ) 30"
    right = sample(question, "a", "It is 38. Therefore, the answer is: a", "a", backend="text")
    lucky = sample(question, "a", "It is 30. Therefore, the answer is: a", "a", backend="text")
    statistics = shares(rollout([right, lucky], [1.0, 1.0]))
    assert statistics["shortcut/letter"] == 0.5
    assert "shortcut/constant" not in statistics

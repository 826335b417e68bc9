"""Sample statistics against hand-computed values."""

from dataclasses import replace

import pytest
import torch

from reft_pl.modules.sample_statistics import sample_statistics
from reft_pl.types import Answer, Columns, Completion, ExecutionResult, Problem, Rollout, Sample, Status, StopReason, TokenBatch


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


def test_rewards_are_means_over_samples_that_have_them_whatever_rank_they_are_on() -> None:
    def rewarded(one: float | None, two: float | None) -> Sample:
        values = Columns({"one": one, "two": two})
        return replace(sample("?", 1.0, "def", None), rewards=values, rewarded=one is not None or two is not None)

    samples = [rewarded(1.0, 0.5), rewarded(None, 0.25), rewarded(None, None), rewarded(0.0, None)]
    outcome = [1.5, 0.25, 0.0, 0.0]
    whole = sample_statistics(rollout(samples[:3], outcome[:3], rollout(samples[3:], outcome[3:])))
    assert whole["rollout/reward"] == (1.75, 3)
    assert whole["rollout/unrewarded"] == (1, 4)
    assert {name: part for name, part in whole.items() if name.startswith("reward/")} == {
        "reward/one": (1.0, 2),
        "reward/two": (0.75, 2),
    }
    ranks = [sample_statistics(rollout(samples[a:b], outcome[a:b])) for a, b in ((0, 1), (1, 4), (4, 4))]
    sums = {name: tuple(map(sum, zip(*(rank.get(name, (0, 0)) for rank in ranks), strict=True))) for name in whole}
    assert {**sums, "rollout/left_out": (1, 4)} == whole


def test_a_single_reward_is_not_logged_twice() -> None:
    single = replace(sample("?", 1.0, "def", None), rewards=Columns({"one": 1.0}))
    assert not [name for name in sample_statistics(rollout([single], [1.0])) if name.startswith("reward/")]

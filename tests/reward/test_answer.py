"""The paper's reward, and a user-defined reward by class path."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from reft_pl.errors import UserError
from reft_pl.reward.answer import AnswerReward
from reft_pl.reward.base import RewardFunction
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason


def sample(gold, status=Status.OK, value=None, tokens=3):
    completion = Completion("q", 0, tuple(range(tokens)), (-0.5,) * tokens, StopReason.EOS)
    return Sample(Problem("q", "?", gold), completion, "", ExecutionResult(status, value))


@pytest.mark.parametrize(
    ("gold", "status", "value", "reward"),
    [
        (5.0, Status.OK, 5.0, 1.0),
        (5.0, Status.OK, 5.01, 1.0),
        (5.0, Status.OK, 5.02, 0.1),
        (5.0, Status.OK, -5.0, 0.1),
        (5.0, Status.OK, "a", 0.0),
        (5.0, Status.EXCEPTION, None, 0.0),
        (5.0, Status.TIMEOUT, None, 0.0),
        (5.0, Status.NON_FINITE, None, 0.0),
        (5.0, Status.OK, math.nan, 0.0),
        (5.0, Status.OK, math.inf, 0.0),
        ("b", Status.OK, "b", 1.0),
        ("b", Status.OK, "c", 0.1),
        ("b", Status.OK, 2.0, 0.0),
        ("b", Status.NON_NUMERIC, None, 0.0),
        ("b", Status.EXCEPTION, None, 0.0),
    ],
)
def test_rewards_for_correct_valid_and_no_answer(gold, status, value, reward):
    assert AnswerReward().score([sample(gold, status, value)]) == [reward]


@pytest.mark.parametrize(("truncated", "rewards"), [("scored", [1.0, 1.0]), ("zero", [1.0, 0.0]), ("partial", [1.0, 0.1])])
def test_a_truncated_completion(truncated, rewards):
    whole = sample(5.0, value=5.0)
    cut = replace(whole, completion=replace(whole.completion, stop=StopReason.LENGTH))
    assert AnswerReward(truncated=truncated).score([whole, cut]) == rewards


def test_one_reward_per_sample_in_order():
    samples = [sample(1.0, value=1.0), sample(1.0, value=2.0), sample(1.0, Status.DIED), sample("a", value="a")]
    assert AnswerReward(partial=0.25).score(samples) == [1.0, 0.25, 0.0, 1.0]
    assert AnswerReward().score([]) == []


def test_partial_and_tolerance_are_settings():
    samples = [sample(1.0, value=1.4), sample(1.0, value=1.6)]
    assert AnswerReward(partial=0.0, tolerance=0.5).score(samples) == [1.0, 0.0]


@pytest.mark.parametrize(
    "settings", [{"partial": -0.1}, {"partial": 1.5}, {"partial": math.nan}, {"tolerance": -1.0}, {"tolerance": math.inf}]
)
def test_invalid_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        AnswerReward(**settings)


def reward_from(arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(RewardFunction, "reward")
    return parser.instantiate_classes(parser.parse_args(arguments)).reward


def test_our_reward_resolves_by_its_short_name():
    reward = reward_from(["--reward=AnswerReward", "--reward.partial=0.2"])
    assert isinstance(reward, AnswerReward)
    assert reward.partial == 0.2


def test_the_docstrings_example_works_from_a_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the docstring's example: the indented block after ``my_reward.py``."""
    lines = AnswerReward.__doc__.split("# my_reward.py\n")[1].splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    example = []
    for line in lines:
        if line.strip() and not line.startswith(" " * indent):
            break
        example.append(line[indent:])
    (tmp_path / "my_brief_reward.py").write_text("\n".join(example), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    reward = reward_from(["--reward=my_brief_reward.BriefAnswerReward", "--reward.per_token=0.01"])
    assert isinstance(reward, RewardFunction)
    assert reward.score([sample(1.0, value=1.0, tokens=20), sample(1.0, value=9.0)]) == pytest.approx([0.8, 0.1])

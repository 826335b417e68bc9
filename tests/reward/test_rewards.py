"""Several rewards, None, time limits, and exceptions of users' functions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram
from reft_pl.reward.answer import AnswerReward
from reft_pl.reward.base import Reward, RewardFunction, WeightedReward
from reft_pl.reward.rewards import Rewards
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason


def samples(n: int) -> list[Sample]:
    completion = Completion("q", 0, (1,), (-0.5,), StopReason.EOS)
    ok = ExecutionResult(Status.OK, 1.0)
    return [Sample(Problem(f"q_{i}", "?", float(i)), completion, f"text {i}", ok) for i in range(n)]


def fixed(*scores: float | None) -> Callable[..., list[float | None]]:
    def function(completions: list[str], problems: list[Problem]) -> list[float | None]:
        return [scores[int(problem.id.removeprefix("q_"))] for problem in problems]

    return function


def score(rewards: Rewards, n: int) -> tuple[list[float], list[bool]]:
    rewarded, outcome = rewards.score(samples(n), PythonProgram())
    return outcome, [sample.rewarded for sample in rewarded]


def test_the_default_is_the_answer_reward() -> None:
    rewarded, outcome = Rewards().score(samples(2), PythonProgram())
    assert outcome == AnswerReward().score(samples(2)) == [0.1, 1.0]
    assert [dict(sample.rewards) for sample in rewarded] == [{"AnswerReward": 0.1}, {"AnswerReward": 1.0}]
    assert Rewards().score([], PythonProgram()) == ([], [])


def test_none_leaves_a_sample_out() -> None:
    assert score(Rewards(fixed(1.0, None, 0.0)), 3) == ([1.0, 0.0, 0.0], [True, False, True])


def test_a_class_may_return_none_too() -> None:
    class Half(RewardFunction):
        def score(self, samples: Sequence[Sample]) -> list[float | None]:
            return [None if index % 2 else 0.5 for index, _ in enumerate(samples)]

    assert score(Rewards(Half()), 2) == ([0.5, 0.0], [True, False])


def test_none_leaves_a_reward_out_of_the_sum() -> None:
    one, two, logged = fixed(1.0, None, 1.0, None), fixed(4.0, 4.0, None, None), fixed(9.0, 9.0, 9.0, 9.0)
    rewards = Rewards(
        rewards=[WeightedReward(one, name="one"), WeightedReward(two, 0.5, "two"), WeightedReward(logged, 0.0, "logged")]
    )
    rewarded, outcome = rewards.score(samples(4), PythonProgram())
    assert outcome == [3.0, 2.0, 1.0, 0.0]
    assert [sample.rewarded for sample in rewarded] == [True, True, True, False], "a reward without weight judges nothing"
    assert dict(rewarded[1].rewards) == {"one": None, "two": 4.0, "logged": 9.0}


@pytest.mark.parametrize(
    ("reward", "rewards", "timeout", "sentence"),
    [
        (fixed(1.0), [WeightedReward(fixed(1.0))], None, "model.reward and model.rewards are both set"),
        (AnswerReward(partial=0), [WeightedReward(fixed(1.0))], None, "model.reward and model.rewards are both set"),
        (None, [], None, "model.rewards is empty"),
        (None, [WeightedReward(fixed(1.0)), WeightedReward(fixed(2.0))], None, "two rewards of model.rewards are called"),
        (None, [WeightedReward(fixed(1.0), float("nan"))], None, "the weight of the reward function is nan"),
        (None, None, 0.0, "model.reward_timeout is 0, but must be positive"),
        (None, None, float("nan"), "model.reward_timeout is nan, but must be positive"),
        (None, None, float("inf"), "model.reward_timeout is inf, but must be positive and finite"),
    ],
)
def test_settings_that_conflict_are_one_sentence(
    reward: Reward | None, rewards: list[WeightedReward] | None, timeout: float | None, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Rewards(reward, rewards, timeout)


def test_rewards_that_add_up_to_infinity_are_refused() -> None:
    with pytest.raises(UserError, match="problem 'q_0' add up to 3e\\+39: lower their weights"):
        score(Rewards(rewards=[WeightedReward(fixed(3.0), 1e39)]), 1)


# ---- time


async def patient(completions: list[str], problems: list[Problem]) -> list[float]:
    assert len(completions) == 1, "an async function is called once per sample"
    await asyncio.sleep(0.3)
    return [problems[0].answer + 0.5 for problem in problems if isinstance(problem.answer, float)]


def test_async_calls_run_at_the_same_time() -> None:
    rewards = Rewards(patient)
    start = time.monotonic()
    assert score(rewards, 20) == ([i + 0.5 for i in range(20)], [True] * 20)
    assert time.monotonic() - start < 3, "20 calls of 0.3 s, one after the other, take 6 s"
    assert score(rewards, 2)[0] == [0.5, 1.5], "the event loop serves the next rollout too"


def test_late_async_calls_count_as_none(caplog: pytest.LogCaptureFixture) -> None:
    async def slow_for_odd(completions: list[str], problems: list[Problem]) -> list[float]:
        await asyncio.sleep(60 * (int(problems[0].id[-1]) % 2))
        return [1.0]

    with caplog.at_level(logging.WARNING):
        found = score(Rewards(slow_for_odd, timeout=0.5), 5)
    assert found == ([1.0, 0.0, 1.0, 0.0, 1.0], [True, False, True, False, True])
    assert caplog.messages == ["slow_for_odd: no reward within model.reward_timeout for 2 of 5 samples"]


def test_a_late_function_counts_as_none_for_its_batch_and_does_not_overlap(caplog: pytest.LogCaptureFixture) -> None:
    running: list[int] = []
    most: list[int] = []

    def slow_at_first(completions: list[str]) -> list[float]:
        running.append(1)
        most.append(len(running))
        time.sleep(1.0 if len(most) == 1 else 0)
        running.pop()
        return [1.0] * len(completions)

    entries = [WeightedReward(slow_at_first), WeightedReward(fixed(2.0, 2.0, 2.0), name="fast")]
    rewards = Rewards(rewards=entries, timeout=0.4)
    with caplog.at_level(logging.WARNING):
        assert score(rewards, 3)[0] == [2.0, 2.0, 2.0]
        assert score(rewards, 3)[0] == [2.0, 2.0, 2.0], "the first call still runs"
    assert caplog.messages == ["slow_at_first: no reward within model.reward_timeout for 3 of 3 samples"] * 2
    time.sleep(1.0)
    assert score(rewards, 3)[0] == [3.0, 3.0, 3.0]
    assert max(most) == 1


# ---- exceptions


def fails_at_two(completions: list[str], problems: list[Problem]) -> list[float]:
    return [1 / (problem.answer - 2) for problem in problems if isinstance(problem.answer, float)]


async def fails_at_two_async(completions: list[str], problems: list[Problem]) -> list[float]:
    return fails_at_two(completions, problems)


class FailsAtTwo(RewardFunction):
    def score(self, samples: Sequence[Sample]) -> list[float]:
        return fails_at_two([], [sample.problem for sample in samples])


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("reward", [fails_at_two, fails_at_two_async, FailsAtTwo()])
def test_an_exception_names_the_problem_and_the_completion(reward: Any, timeout: float | None) -> None:
    with pytest.raises(UserError) as error:
        score(Rewards(reward, timeout=timeout), 4)
    name = getattr(reward, "__name__", "FailsAtTwo")
    message = str(error.value)
    assert message.startswith(f"the reward function {name} raised ZeroDivisionError: float division by zero in line ")
    assert "of test_rewards.py for the problem 'q_2' and the completion 'text 2': correct the function" in message
    assert "\n" not in message
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_an_exception_of_a_whole_batch_names_the_batch() -> None:
    def only_in_company(completions: list[str]) -> list[float]:
        if len(completions) > 1:
            raise KeyError("tests")
        return [0.0]

    with pytest.raises(UserError, match=r"KeyError: 'tests'.* in a batch of 3 samples, the first for the problem 'q_0'"):
        score(Rewards(only_in_company), 3)


def test_a_wrong_number_of_rewards_names_the_function() -> None:
    async def two(completions: list[str]) -> list[float]:
        return [1.0, 1.0]

    with pytest.raises(UserError, match="the reward function two returned 2 rewards for 1 samples"):
        score(Rewards(two), 3)
    with pytest.raises(UserError, match="the reward function <lambda> returned nan for a sample of the problem 'q_0'"):
        score(Rewards(lambda completions: [float("nan")]), 1)


def test_a_user_error_of_a_reward_is_kept() -> None:
    def refuses(completions: list[str]) -> list[float]:
        raise UserError("start the judge's server first")

    with pytest.raises(UserError, match=r"^start the judge's server first$"):
        score(Rewards(refuses), 1)

"""Plain and TRL-style functions: the arguments that they get, and the columns that they need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from reft_pl.errors import UserError
from reft_pl.formats import Chat, PythonProgram
from reft_pl.reward.functions import FunctionReward
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason


def sample(index: int, **columns: Any) -> Sample:
    completion = Completion("q", 0, (1, index), (-0.5, -0.5), StopReason.EOS)
    problem = Problem(f"q_{index}", f"What is {index} + 0?", float(index), columns=columns)
    return Sample(problem, completion, f"text {index}", ExecutionResult(Status.OK, 1.0))


SAMPLES = [sample(0, tests=["a"], level=1), sample(1, tests=["b"])]


def seen_by(function: Callable[..., Any], cot_format: Any = None) -> Any:
    return FunctionReward(function)(SAMPLES, cot_format or PythonProgram())


def test_a_function_gets_texts_problems_and_columns_as_lists() -> None:
    def everything(completions: list[str], problems: list[Problem], **columns: list[Any]) -> Any:
        return completions, problems, columns

    texts, problems, columns = seen_by(everything)
    assert texts == ["text 0", "text 1"]
    assert problems == [s.problem for s in SAMPLES]
    assert columns == {"tests": [["a"], ["b"]], "level": [1, None]}


def test_a_function_gets_only_what_its_signature_names() -> None:
    assert seen_by(lambda tests: tests) == [["a"], ["b"]]
    assert seen_by(lambda completions, level=None: level) == [1, None]
    assert seen_by(lambda completions, other=3: other) == 3
    assert seen_by(partial(lambda completions, factor: factor, factor=2)) == 2


def test_a_function_with_prompts_gets_what_trl_passes() -> None:
    def like_trl(prompts: list[Any], completions: list[Any], **kwargs: Any) -> Any:
        return prompts, completions, kwargs

    prompts, completions, kwargs = seen_by(like_trl)
    assert completions == ["text 0", "text 1"]
    assert prompts == [PythonProgram().input_text(s.problem) for s in SAMPLES]
    assert kwargs == {"completion_ids": [[1, 0], [1, 1]], "tests": [["a"], ["b"]], "level": [1, None]}
    prompts, completions, _ = seen_by(like_trl, Chat(instruction="", system="Be brief."))
    system = {"role": "system", "content": "Be brief."}
    assert prompts == [[system, {"role": "user", "content": f"What is {i} + 0?"}] for i in range(2)]
    assert completions == [[{"role": "assistant", "content": f"text {i}"}] for i in range(2)]


class Judge:
    def __call__(self, completions: list[str]) -> list[float]:
        return [0.5] * len(completions)


class AsyncJudge:
    async def __call__(self, completions: list[str]) -> list[float]:
        return [0.5] * len(completions)


async def asynchronous(completions: list[str]) -> list[float]:
    return [0.5] * len(completions)


def test_objects_and_async_functions_are_recognised() -> None:
    assert FunctionReward(Judge()).name == "Judge"
    assert seen_by(Judge()) == [0.5, 0.5]
    assert not FunctionReward(Judge()).is_async
    assert not FunctionReward(len_of).is_async
    assert all(FunctionReward(f).is_async for f in (asynchronous, AsyncJudge(), partial(asynchronous)))


def len_of(completions: list[str], difficulty: list[int]) -> list[float]:
    return [float(len(text)) for text in completions]


def test_a_required_column_must_be_in_the_data() -> None:
    problems = [s.problem for s in SAMPLES]
    FunctionReward(lambda completions, tests, level: None).check(problems)
    with pytest.raises(UserError, match="len_of needs 'difficulty', but functions get completions"):
        FunctionReward(len_of).check(problems)
    with pytest.raises(UserError, match="the column 'prompts' has the name of an argument of reward functions"):
        FunctionReward(Judge()).check([Problem("q", "?", 1.0, columns={"prompts": "x"})])


def test_a_function_without_a_signature_is_one_sentence() -> None:
    with pytest.raises(UserError, match="dict does not show its parameters"):
        FunctionReward(dict)

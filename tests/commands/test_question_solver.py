"""Solving single questions: samples depend only on seed, question and index; votes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reft_pl.commands.question_solver import QuestionSolver, Solution
from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Answer, Completion, ExecutionResult, Problem, Sample, SamplingParams, Status, StopReason

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"


@pytest.fixture
def make_solver(micro_model: Path) -> Callable[..., QuestionSolver]:
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"))

    def make(n: int = 1, seed: int = 1, temperature: float = 1.0, max_prompt_tokens: int = 100) -> QuestionSolver:
        codec = Codec(load_tokenizer(str(micro_model)), PythonProgram(), max_prompt_tokens, 120)
        params = SamplingParams(120, temperature, 50)
        return QuestionSolver(policy, codec, InProcessSampler(), CPythonSandbox(), params, n, seed)

    return make


def texts(solution: Solution) -> list[str]:
    return [sample.text for sample in solution.samples]


def test_samples_depend_only_on_seed_question_and_index(make_solver: Callable[..., QuestionSolver]) -> None:
    solver = make_solver(n=3)
    first = texts(solver.solve(QUESTION))
    assert len(set(first)) == 3
    solver.solve("What is 1 plus 1?")
    assert texts(solver.solve(QUESTION)) == first
    assert texts(make_solver(n=2).solve(QUESTION)) == first[:2]
    assert texts(make_solver(n=3, seed=2).solve(QUESTION)) != first
    solver.close()


def test_greedy_does_not_depend_on_the_seed(make_solver: Callable[..., QuestionSolver]) -> None:
    greedy = [texts(make_solver(seed=seed, temperature=0.0).solve(QUESTION)) for seed in (1, 2)]
    assert greedy[0] == greedy[1]


def test_a_question_that_is_too_long_is_refused(make_solver: Callable[..., QuestionSolver]) -> None:
    with pytest.raises(UserError, match=r"makes a prompt of \d\d tokens, and this model takes 20: shorten it"):
        make_solver(max_prompt_tokens=20).solve(QUESTION)


def solution(*values: Answer | None) -> Solution:
    def sample(index: int, value: Answer | None) -> Sample:
        status = Status.EXCEPTION if value is None else Status.OK
        completion = Completion("0:question", index, (2,), (-0.1,), StopReason.EOS)
        return Sample(Problem("question", QUESTION, None), completion, f"text {index}", ExecutionResult(status, value))

    return Solution(tuple(sample(index, value) for index, value in enumerate(values)))


def test_scores_weight_the_votes() -> None:
    plain = solution(4.0, 7.0, 7.0, None)
    assert [plain.answers[group[0]] for group in plain.votes] == [7.0, 4.0]
    scored = replace(plain, scores=(0.9, 0.3, 0.5, 1.0))
    assert [scored.answers[group[0]] for group in scored.votes] == [4.0, 7.0]
    assert [scored.score(group) for group in scored.votes] == pytest.approx([0.9, 0.8])
    assert scored.chosen.text == "text 0"
    assert replace(plain, scores=(0.1, 0.3, 0.5, 1.0)).chosen.text == "text 2", "the best-scored sample of the answer"
    assert replace(solution(None, None), scores=(0.1, 0.9)).chosen.text == "text 0"


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ((None, 4.0, 7.0, 7.0000001), 2),  # one answer to 6 significant digits
        ((4.0, 7.0, 7.0, 4.0), 0),  # a tie: 4 was there first
        ((7.0, "b", "b"), 1),
        ((None, None), 0),
    ],
)
def test_a_vote_shows_its_first_sample(values: tuple[Answer | None, ...], chosen: int) -> None:
    assert solution(*values).chosen.text == f"text {chosen}"

"""The curriculum over prefixes: how many lines are given, and the prompts that hold them."""

from collections import Counter
from pathlib import Path

import pytest

from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.formats import NaturalLanguage, PythonProgram
from reft_pl.rollout.curriculum import PrefixCurriculum, remaining_share
from reft_pl.types import Problem

PROGRAM = 'def solution():\n    """?"""\n    a = 1\n    b = 2\n    c = a + b\n    return c'
LINES = ["    a = 1", "    b = 2", "    c = a + b", "    return c"]


def problem(name: str = "q", solution: str | None = PROGRAM) -> Problem:
    return Problem(name, "How many?", 3.0, solution)


@pytest.fixture
def codec(micro_model: Path) -> Codec:
    return Codec(load_tokenizer(str(micro_model)), PythonProgram(), 100, 150)


@pytest.mark.parametrize(
    ("step", "share", "remaining"),
    [(0, 0.5, 1.0), (10, 0.5, 0.5), (20, 0.5, 0.0), (30, 0.5, 0.0), (0, 0.0, 0.0), (30, 1.0, 0.25)],
)
def test_the_share_shrinks_to_zero(step: int, share: float, remaining: float) -> None:
    assert remaining_share(step, 40, share) == pytest.approx(remaining)


def test_numbers_of_lines_are_uniform_up_to_the_share(codec: Codec) -> None:
    problems = [problem(str(i)) for i in range(2000)]
    curriculum = PrefixCurriculum(codec, seed=1)
    counts = Counter(p.given_lines for p in curriculum.apply(problems, 0, 1.0))
    assert set(counts) == {0, 1, 2, 3}, "the last line is never given"
    assert all(abs(count / 2000 - 1 / 4) < 0.04 for count in counts.values())
    assert set(Counter(p.given_lines for p in curriculum.apply(problems, 5, 0.5))) == {0, 1, 2}
    assert curriculum.apply(problems, 9, 0.0) == problems


def test_draws_depend_on_seed_step_and_problem_alone(codec: Codec) -> None:
    problems = [problem(str(i)) for i in range(40)]
    whole = PrefixCurriculum(codec, seed=1).apply(problems, 3, 1.0)
    assert PrefixCurriculum(codec, seed=1).apply(problems[1::2], 3, 1.0) == whole[1::2]
    assert PrefixCurriculum(codec, seed=2).apply(problems, 3, 1.0) != whole
    assert PrefixCurriculum(codec, seed=1).apply(problems, 4, 1.0) != whole


def test_a_prompt_holds_the_lines_and_the_response_starts_with_them(codec: Codec) -> None:
    whole = codec.example(problem()).ids
    for given in PrefixCurriculum(codec, seed=1).apply([problem(str(i)) for i in range(8)], 0, 1.0):
        prompt = codec.prompt_ids(given)
        assert prompt == whole[: len(prompt)], "a prompt is a prefix of the training text"
        text = codec.response_text(given, whole[len(prompt) :])
        assert text.split("\n")[2:] == LINES
        assert codec.format.program(given, text) == text
        shown = codec.tokenizer.decode(prompt)
        assert all(line in shown for line in LINES[: max(0, given.given_lines - 1)])
        assert LINES[-1] not in shown


def test_long_prompts_hold_fewer_lines(micro_model: Path) -> None:
    tokenizer = load_tokenizer(str(micro_model))
    room = len(Codec(tokenizer, PythonProgram(), 100, 150).prompt_ids(problem()))
    tight = PrefixCurriculum(Codec(tokenizer, PythonProgram(), room, 150), seed=1)
    assert {p.given_lines for p in tight.apply([problem(str(i)) for i in range(20)], 0, 1.0)} == {0}


def test_what_has_no_program_has_no_lines(codec: Codec, micro_model: Path) -> None:
    bare = problem(solution=None)
    assert PrefixCurriculum(codec, seed=1).apply([bare], 0, 1.0) == [bare]
    text = problem(solution="One and two make three.")
    assert PrefixCurriculum(codec, seed=1).apply([text], 0, 1.0) == [text]
    words = Codec(load_tokenizer(str(micro_model)), NaturalLanguage(), 100, 150)
    assert PrefixCurriculum(words, seed=1).apply([problem()], 0, 1.0) == [problem()]

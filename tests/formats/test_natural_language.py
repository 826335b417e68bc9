from __future__ import annotations

from dataclasses import replace

import pytest

from reft_pl.data.sources import AuthorsJson, Gsm8kOfficial
from reft_pl.errors import UserError
from reft_pl.formats import NaturalLanguage
from reft_pl.types import Problem, Status

FORM = NaturalLanguage()
PROBLEM = Problem("x_1", "How many?", 203.0, "29 * 7 = 203 pairs.\n\nTherefore, the answer is <203>.")


@pytest.mark.parametrize(
    ("solution", "reasoning"),
    [
        ("29 * 7 = 203 pairs.\n\nTherefore, the answer is <203>.", "29 * 7 = 203 pairs.\n"),
        ("29 * 7 = 203 pairs. Therefore, the answer is <203>.", "29 * 7 = 203 pairs.\n"),
        ("29 * 7 = 203\nTherefore, the answer is: 203", "29 * 7 = 203\n"),
        ("29 * 7 = 203 pairs. The answer is 203.", "29 * 7 = 203 pairs.\n"),
        ("29 * 7 = 203", "29 * 7 = 203\n"),
        ("I add them, so the answer is 203.", "I add them, so the answer is 203.\n"),
        ("Therefore, the answer is 203.", ""),
    ],
)
def test_the_target_concludes_once(solution, reasoning):
    assert FORM.target_text(replace(PROBLEM, solution=solution)) == f"{reasoning}Therefore, the answer is: 203"


def test_the_answer_follows_the_last_phrase():
    assert FORM.answer(PROBLEM, "Therefore, the answer is: 5\nno\nTherefore, the answer is: $1,203 all\n7").value == 1203
    assert FORM.answer(PROBLEM, "It is 203.").status is Status.NO_RESULT
    assert FORM.answer(PROBLEM, "Therefore, the answer is: many").status is Status.NON_NUMERIC
    assert FORM.answer(replace(PROBLEM, answer="c"), "Therefore, the answer is: C").value == "c"
    assert FORM.program(PROBLEM, "anything") is None


def test_a_solution_is_needed_for_a_target():
    with pytest.raises(UserError, match="x_1 has no annotated solution"):
        FORM.target_text(replace(PROBLEM, solution=None))


@pytest.mark.parametrize("source", ["svamp_nl.json", "gsm8k_official_train.jsonl"])
def test_every_target_states_its_own_answer_once(shared, source):
    reader = AuthorsJson if source.endswith(".json") else Gsm8kOfficial
    for problem in reader(str(shared / "data" / source)).load():
        target = FORM.target_text(problem)
        assert target.count("Therefore, the answer is") == 1
        assert FORM.answer(problem, target).value == problem.answer


def test_a_sampled_solution_ends_with_the_line_of_its_answer():
    form, problem = NaturalLanguage(), Problem("q", "How many?", 7.0)
    rambling = "3 + 4 = 7.\nTherefore, the answer is: 7\nQuestion:\nAnd then?"
    solution = form.solution_in(problem, rambling)
    assert solution == "3 + 4 = 7.\nTherefore, the answer is: 7"
    assert form.target_text(Problem("q", "How many?", 7.0, solution)) == solution
    assert form.solution_in(problem, "no answer") is None

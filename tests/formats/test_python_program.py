from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reft_pl.data.sources import AuthorsJson
from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram
from reft_pl.formats.python_program import docstring
from reft_pl.types import Problem

FORM = PythonProgram()
PROBLEM = Problem(
    "svamp_1", "How many?", 3.0, 'def solution():\n    """How many ?"""\n    a = 1\n    result = a + 2\n    return result'
)
GIVEN = 'def solution():\n    """How many?"""\n'
BODY = "    a = 1\n    result = a + 2\n    return result"
AWKWARD = st.text(st.sampled_from("ab \"'\\\n\r\t\0N{}x") | st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


def test_prompt_and_target_by_hand():
    assert FORM.input_text(PROBLEM) == "Question:\nHow many?\nAnswer reasoning:\n"
    assert FORM.given_text(PROBLEM) == GIVEN
    assert FORM.target_text(PROBLEM) == GIVEN + BODY
    assert FORM.runs_programs


@example('say """')
@example('x""""')
@example('a\\"')
@given(AWKWARD)
def test_docstring_reads_back_as_the_question(question):
    tree = ast.parse(f'def solution():\n    """{docstring(question)}"""\n    return 1')
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    assert ast.get_docstring(function, clean=False) == question


@given(AWKWARD)
def test_a_question_with_blank_lines_does_not_end_the_program(question):
    problem = replace(PROBLEM, question=question)
    target = FORM.target_text(problem)
    assert FORM.program(problem, target) == target
    assert FORM.program(problem, target + "\n\nprint('more')") == target + "\n"
    assert FORM.program(problem, target + "\n  \t\nQuestion:\n") == target + "\n"


def test_a_program_ends_at_its_first_blank_line():
    assert FORM.program(PROBLEM, GIVEN + "    return 1\n\n    return 2") == GIVEN + "    return 1\n"
    assert FORM.program(PROBLEM, GIVEN + "\n    return 2") == GIVEN


def test_an_unusual_docstring_end_still_ends_at_a_blank_line():
    problem = replace(PROBLEM, question="One line.\n\nHow many?")
    response = 'def solution():\n    """One line.\n\nHow many."""\n    return 1\n\nrest'
    assert FORM.program(problem, response) == 'def solution():\n    """One line.\n\nHow many."""\n    return 1\n'
    assert FORM.program(problem, "") is None
    assert FORM.program(problem, "def sol") == "def sol"


@pytest.mark.parametrize(
    ("solution", "body"),
    [
        ('def solution():\n    """He said "hi""""\n    return 1', "    return 1"),
        ("def solution():\n    '''q'''\n    return 1\n", "    return 1"),
        ("def solution() -> float:\n  return 1", "    return 1"),
        ('def solution():\n    """q"""\n    a = 1\n\n    return a\n\n', "    a = 1\n    return a"),
        ("def solution():\n\tif 1:\n\t\treturn 1", "    if 1:\n    \treturn 1"),
    ],
)
def test_annotations_of_other_shapes_get_the_given_lines(solution, body):
    target = FORM.target_text(replace(PROBLEM, solution=solution))
    assert target == GIVEN + body
    ast.parse(target)


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (None, "svamp_1 has no annotated program"),
        ("3 + 4 = 7", "svamp_1 does not start with 'def solution"),
        ('def solution():\n    """q"""\n', "svamp_1 has no code after its docstring"),
    ],
)
def test_text_that_is_not_a_program_is_named(solution, message):
    with pytest.raises(UserError, match=message):
        FORM.target_text(replace(PROBLEM, solution=solution))


def test_svamp_programs_keep_their_bodies(shared):
    problems = AuthorsJson(str(shared / "data" / "svamp_python_sdp.json")).load()
    rebuilt = 0
    for problem in problems:
        target = FORM.target_text(problem)
        ast.parse(target)
        assert target.startswith(FORM.given_text(problem))
        assert target.split('"""')[-1] == (problem.solution or "").split('"""')[-1]
        rebuilt += target != problem.solution
    assert rebuilt == 37


def test_programs_are_not_read_as_text():
    with pytest.raises(TypeError, match="sandbox"):
        FORM.answer(PROBLEM, "4")


def test_text_after_a_sampled_function_is_not_trained_on():
    problem = replace(PROBLEM, solution=GIVEN + BODY + "\n\nprint(solution())")
    assert FORM.target_text(problem) == GIVEN + BODY
    cut_off = replace(PROBLEM, solution=GIVEN + "    a = (1 +")  # does not parse: kept unchanged
    assert FORM.target_text(cut_off) == GIVEN + "    a = (1 +"

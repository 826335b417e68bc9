from __future__ import annotations

from dataclasses import replace

import pytest

from reft_pl.errors import UserError
from reft_pl.formats import Chat
from reft_pl.types import Problem, Status

PROBLEM = Problem("x_1", "How many?", 5.0)


def render(messages):
    return "|".join(f"{m['role']}:{m['content']}" for m in messages)


def test_messages():
    assert Chat().input_text(PROBLEM, render) == ("user:How many?\n\nThink step by step and put the final answer in \\boxed{}.")
    assert Chat(instruction="", system="Sys").input_text(PROBLEM, render) == "system:Sys|user:How many?"
    assert Chat("x=(.*)").input_text(PROBLEM, render) == "user:How many?"
    assert Chat().given_text(PROBLEM) == ""


@pytest.mark.parametrize(
    ("pattern", "response", "value"),
    [
        ("boxed", r"First \boxed{4}, then \boxed{5}.", 5.0),
        (r"\boxed{}", r"\boxed{\frac{10}{2}}", 5.0),
        ("####", "3 + 2\n#### 1,005\nbye", 1005.0),
        ("####", "#### 5 ####", 5.0),
        ("####", "#### 5\n####", 5.0),
        ("####", "#### 4\n#### 5 ####\nbye", 5.0),
        ("####", "####\n5", 5.0),
        ("boxed", r"\boxed {5}", 5.0),
        ("boxed", r"\boxed{5}. I put it in \boxed{} as asked.", 5.0),
        (r"ANSWER:\s*(\S+)", "ANSWER: 4 ... ANSWER: 5", 5.0),
    ],
)
def test_answers(pattern, response, value):
    assert Chat(pattern).answer(PROBLEM, response).value == value


def test_no_answer_and_choices():
    assert Chat().answer(PROBLEM, "five").status is Status.NO_RESULT
    assert Chat().answer(replace(PROBLEM, answer="b"), r"\boxed{(B)}").value == "b"


def test_programs_are_in_code_fences():
    form = Chat("program")
    response = "Sure:\n```python\ndef solution():\n    return 1\n\n    # spaced\n```\nRun it:\n```\nsolution()\n```\n"
    assert form.runs_programs
    assert form.program(PROBLEM, response) == "def solution():\n    return 1\n\n    # spaced\n"
    assert form.program(PROBLEM, "```py\ndef solution():\n    return 2") == "def solution():\n    return 2"
    assert form.program(PROBLEM, "no code") is None
    assert form.program(PROBLEM, "```bash\nls\n```\nThen\n``` python\ndef solution():\n    return 3\n```\n").endswith(
        "return 3\n"
    )
    assert form.program(PROBLEM, "```bash\nls\n```\nThat lists the files.") is None
    assert Chat().program(PROBLEM, response) is None
    with pytest.raises(TypeError, match="sandbox"):
        form.answer(PROBLEM, response)


@pytest.mark.parametrize(
    ("pattern", "solution", "target"),
    [
        ("boxed", "3 + 2 = 5", "3 + 2 = 5\nThe answer is \\boxed{5}."),
        ("boxed", "It is \\boxed{5}", "It is \\boxed{5}"),
        ("####", "3 + 2 = 5", "3 + 2 = 5\n#### 5"),
        ("program", "def solution():\n    return 5", "```python\ndef solution():\n    return 5\n```"),
        ("A: (.*)", "A: 5", "A: 5"),
    ],
)
def test_targets_contain_a_readable_answer(pattern, solution, target):
    form = Chat(pattern)
    assert form.target_text(replace(PROBLEM, solution=solution)) == target
    if form.runs_programs:
        assert form.program(PROBLEM, target) == solution + "\n"
    else:
        assert form.answer(PROBLEM, target).value == 5.0


def test_user_errors_are_named():
    with pytest.raises(UserError, match="has 2 groups"):
        Chat("(a)(b)")
    with pytest.raises(UserError, match="not a regular expression"):
        Chat("(a")
    with pytest.raises(UserError, match="chat template"):
        Chat().input_text(PROBLEM)
    with pytest.raises(UserError, match="x_1 has no annotated solution"):
        Chat().target_text(PROBLEM)
    with pytest.raises(UserError, match="does not match the answer pattern"):
        Chat("A: (.*)").target_text(replace(PROBLEM, solution="five"))


def test_a_pattern_is_searched_for_at_the_end_and_for_a_second():
    far = Chat(r"x=(\d+)")
    assert far.answer(PROBLEM, "x=5" + " " * 4000).value == 5.0
    assert far.answer(PROBLEM, "x=5" + " " * 5000).status is Status.NO_RESULT
    slow, response = Chat(r"(?:(?:a|aa)+)+b(\d)"), "a" * 60 + "c"
    assert slow.answer(PROBLEM, response).status is Status.TIMEOUT
    with pytest.raises(UserError, match="takes over 1 s on the solution of x_1"):
        slow.target_text(replace(PROBLEM, solution=response))

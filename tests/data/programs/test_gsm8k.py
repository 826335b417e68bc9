"""GSM8K solutions as programs: kinds of equations, step reuse, names, and unconvertible solutions."""

import pytest

from reft_pl.data.programs.gsm8k import program_of
from reft_pl.data.programs.writing import Unconvertible
from tests.data.programs.execution import execute


def body(question: str, *lines: str) -> list[str]:
    program = program_of(question, "\n".join(lines))
    head, _, rest = program.partition(f'"""{question}"""\n')
    assert head == "def solution():\n    "
    return [line.strip() for line in rest.splitlines()]


def value(question: str, *lines: str) -> float:
    result = execute(program_of(question, "\n".join(lines)))
    assert isinstance(result, (int, float))
    return result


def test_steps_are_named_and_reused() -> None:
    assert body(
        "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many altogether?",
        "Natalia sold 48/2 = <<48/2=24>>24 clips in May.",
        "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.",
    ) == [
        "clips_in_may = 48 / 2",
        "clips_altogether_in_april = 48 + clips_in_may",
        "result = clips_altogether_in_april",
        "return result",
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("He paid $560 x 20% = $112 in all.", "560 * (20 / 100)"),
        ("So 100% - 20% = 80% are left.", "100 - 20"),
        ("They are (2 red + 2 red newly inflated) / 10 total balloons = 40%", "(2 + 2) / 10 * 100"),
        ("That is 12000 flowers/unicorn * 6 unicorns = 72,000 flowers", "12000 * 6"),
        ("He makes $28/day x 7 days = $196.", "28 * 7"),
        ("Shells:80(.95)=76", "80 * 0.95"),
        ("He spends 50 because 100 divided by 2 equals 50", "100 / 2"),
        ("She has 50 - 16 = <<34=34>>34 left", "50 - 16"),
        ("A third is <<30*(1/3)=10>>10 apples", "30 * (1 / 3)"),
        ("So she has 5*10*2 = 10*10 = 100 pens", "10 * 10"),
    ],
)
def test_equations_in_everyday_notation(line: str, text: str) -> None:
    question = "Given are 2, 6, 7, 10, 16, 20, 28, 30, 50, 80, 100, 560, 12000."
    assert body(question, line)[-3].partition(" = ")[2] == text


def test_a_false_equation_is_not_a_step() -> None:
    with pytest.raises(Unconvertible, match="no equation"):
        program_of("He had 4.", "With X pens it is 2X + 4 = 10, so 3 + 4 = 9")


def test_a_bare_number_makes_no_program() -> None:
    with pytest.raises(Unconvertible, match="no equation"):
        program_of("He is 72.", "He is <<72=72>>72.")


def test_a_large_number_of_unknown_origin_makes_no_program() -> None:
    with pytest.raises(Unconvertible, match="of unknown origin"):
        program_of("They have $50000, he $1000 more than 4 times hers.", "So d = 49000 / 5 = <<49000/5=9800>>9800")
    assert body("They have $49000 for 5.", "d = <<49000/5=9800>>9800 dollars")[0] == "dollars = 49000 / 5"


def test_the_last_line_determines_the_result() -> None:
    lines = ["The red ones are 3*4=<<3*4=12>>12 pens.", "The blue ones are 3*5=<<3*5=15>>15 pens."]
    assert value("3, 4 and 5.", *lines) == 15
    assert value("3, 4 and 5.", *lines, "So there are 12 red ones.") == 12


def test_the_result_is_rounded_like_the_text() -> None:
    line = "He works 2060 / 15 = <<2060/15=137.33>>137.33 hours."
    assert value("2060 and 15", line) == pytest.approx(137.33, abs=0.01)
    assert value("2060 and 15", line, "He has to work 138 hours.") == 138
    assert value("2060 and 15", line + " This rounds to 137.") == 137


def test_unused_steps_are_left_out() -> None:
    lines = body("4, 9 and 7.", "She has 4*9=<<4*9=36>>36 pens.", "He has 7+9=<<7+9=16>>16 cups.")
    assert lines == ["cups = 7 + 9", "result = cups", "return result"]


def test_a_number_of_the_question_takes_precedence_over_a_used_step() -> None:
    lines = body(
        "She buys 5 and sells 3.", "It is 3+2=<<3+2=5>>5 pens", "so 5*3=<<5*3=15>>15 cups", "and 15-5=<<15-5=10>>10 jars"
    )
    assert lines[:3] == ["pens = 3 + 2", "cups = pens * 3", "jars = cups - 5"]

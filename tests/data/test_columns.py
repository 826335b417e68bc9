import pytest

from reft_pl.data.columns import BOXED, HASHES, Columns, guess_columns, stated
from reft_pl.errors import UserError


def rows(*columns: str, values: list[tuple]) -> list[dict]:
    return [dict(zip(columns, row, strict=True)) for row in values]


PUBLISHED = {
    "gsm8k": (
        rows("question", "answer", values=[("How many clips?", "48/2 = <<48/2=24>>24.\n#### 24")] * 3),
        Columns(("question",), "answer", "answer", HASHES),
    ),
    "math": (
        rows("problem", "level", "type", "solution", values=[("Find $x$.", "Level 5", "Algebra", r"So $x=\boxed{12}$.")] * 3),
        Columns(("problem",), "solution", "solution", BOXED),
    ),
    "authors": (
        rows(
            "item_id", "question", "answer_cot", "answer_value", values=[("svamp_1", "How many?", "def solution():", "3")] * 3
        ),
        Columns(("question",), "answer_value", "answer_cot", None),
    ),
    "svamp": (
        rows("ID", "Body", "Question", "Equation", "Answer", values=[("chal-1", "He has 8.", "How many?", "8 - 3", 5.0)] * 3),
        Columns(("Body", "Question"), "Answer", None, None),
    ),
    "mathqa": (
        rows(
            "Problem",
            "Rationale",
            "options",
            "correct",
            "annotated_formula",
            values=[("What is 5 % of 20?", "It is 1.", "a ) 1 , b ) 2", "a", "divide(n0,n1)")] * 3,
        ),
        Columns(("Problem", "options"), "correct", "Rationale", None),
    ),
    "alpaca": (
        rows("instruction", "input", "output", values=[("Add the numbers.", "2 and 3", "5"), ("Double it.", "4", "8")]),
        Columns(("instruction", "input"), "output", None, None),
    ),
    "open-r1": (
        rows("prompt", "completion", "label", values=[("How many?", "He has 2 + 3 = 5.", "5")] * 3),
        Columns(("prompt",), "label", "completion", None),
    ),
    "response with its answer": (
        rows("query", "response", values=[("How many?", "He has 2 + 3 = 5.\n#### 5")] * 3),
        Columns(("query",), "response", "response", HASHES),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_columns_of_published_datasets(name: str) -> None:
    table, expected = PUBLISHED[name]
    assert guess_columns(table) == expected


def test_unusual_names_are_guessed_by_content() -> None:
    table = [
        {"nr": i, "aufgabe": f"Tom hat {i} und {i + 2}?", "weg": f"Er hat {i} + {i + 2} = {2 * i + 2}.", "zahl": 2 * i + 2}
        for i in range(1, 9)
    ]
    assert guess_columns(table) == Columns(("aufgabe",), "zahl", "weg", None)


def test_a_column_that_counts_is_an_id_unless_nothing_else_is_an_answer() -> None:
    table = [{"frage": f"Was ist {i} plus 2?", "n": i, "zahl": i * i} for i in range(9)]
    assert guess_columns(table).answer == "zahl"
    assert guess_columns([{key: row[key] for key in ("frage", "n")} for row in table]).answer == "n"


def test_a_usual_name_without_readable_answers_gives_way() -> None:
    table = rows("question", "answer", "value", values=[("How many?", "He has five of them in all.", "5")] * 4)
    assert guess_columns(table) == Columns(("question",), "value", None, None)


def test_named_columns_are_taken_and_checked() -> None:
    table = rows("a", "b", "c", values=[("Which?", "3", "4")] * 3)
    assert guess_columns(table, ["a"], "c") == Columns(("a",), "c", None, None)
    with pytest.raises(UserError, match="there is no column 'd': the table has 'a', 'b', 'c'"):
        guess_columns(table, answer="d")
    with pytest.raises(UserError, match="no answer in the column 'a' is a number or a letter"):
        guess_columns(table, answer="a")


def test_a_table_without_answers_or_questions_is_refused() -> None:
    with pytest.raises(UserError, match="name the answer's column with --answer"):
        guess_columns(rows("question", "answer", values=[("Why?", "Because of the wind.")]))
    with pytest.raises(UserError, match="with --question"):
        guess_columns(rows("messages", "answer", values=[([{"role": "user"}], 3)]))


@pytest.mark.parametrize(
    ("value", "pattern", "answer"),
    [
        ("1,024", None, 1024.0),
        ("B", None, "b"),
        ("1,5", None, None),
        ("a #### 3\nb #### 4", HASHES, 4.0),
        (r"first \boxed{1}, then \boxed{12}", BOXED, 12.0),
        (r"\boxed{\frac{1}{2}}", BOXED, None),
        (None, HASHES, None),
        (True, None, None),
    ],
)
def test_stated_answers(value: object, pattern: str | None, answer: object) -> None:
    assert stated(value, pattern) == answer

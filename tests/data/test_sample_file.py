"""Sample files in both formats: JSON lines and the authors' list."""

import json
from dataclasses import replace

import pytest

from reft_pl.data.sample_file import Prediction, SampledQuestion, read_samples, to_authors_list, to_line
from reft_pl.errors import UserError

ITEM = SampledQuestion(
    "svamp_1",
    "How many?\u2028Really?",
    7.0,
    (Prediction("a", 7.0, True, "ok", 3), Prediction("b", None, False, "timeout", 9), Prediction("c", 7.004, True, "ok", 2)),
    "annotated",
)


def test_a_written_file_reads_back(tmp_path):
    file = tmp_path / "s.jsonl"
    choice = SampledQuestion("mathqa_2", "Which?", "c", (Prediction("x", "c", True), Prediction("y", "a", False)))
    file.write_text(to_line(ITEM) + to_line(choice))
    assert read_samples(file) == [ITEM, choice]


def test_a_line_holds_the_authors_fields():
    row = json.loads(to_line(ITEM))
    assert row["answer_value"] == "7.0"
    assert row["predictions"][0] == {"completion": "a", "solving_res": 7.0, "correctness": True, "status": "ok", "tokens": 3}
    assert (row["most_voted_answer"], row["is_correct"]) == (7.0, True), "7.004 is another answer, and 7 came first"


def test_the_authors_list_is_read(tmp_path):
    rows = [
        {
            "item_id": "mathqa_3",
            "question": "Which?",
            "answer_value": "B ",
            "answer_cot": None,
            "predictions": [
                {"completion": "p", "solving_res": "b", "correctness": True},
                {"completion": "q", "solving_res": "none", "correctness": False},
                {"completion": "r", "solving_res": None, "correctness": False},
            ],
            "most_voted_answer": "b",
            "is_correct": True,
        },
        {
            "item_id": "gsm8k_4",
            "question": "How many?",
            "answer_value": "1,200",
            "predictions": [{"completion": "p", "solving_res": 1200.0, "correctness": True}],
        },
    ]
    file = tmp_path / "samples.json"
    file.write_text(json.dumps(rows, indent=1))
    choice, number = read_samples(file)
    assert choice.gold == "b"
    assert choice.answers == ["b", None, None]
    assert number.gold == 1200.0
    assert number.verdicts == [True]


def test_the_authors_list_has_only_their_fields_and_reads_back(tmp_path):
    choice = SampledQuestion("mathqa_2", "Which?", "c", (Prediction("x", "c", True), Prediction("y", None, False)))
    file = tmp_path / "samples.json"
    file.write_text(to_authors_list([ITEM, choice]))
    number, letter = json.loads(file.read_text())
    assert list(number) == [
        "item_id", "question", "answer_value", "answer_cot", "predictions", "most_voted_answer", "is_correct"
    ]  # fmt: skip
    assert number["predictions"][1] == {"completion": "b", "solving_res": None, "correctness": False}
    assert (number["answer_value"], number["most_voted_answer"], number["is_correct"]) == ("7.0", 7.0, True)
    assert (letter["answer_value"], letter["most_voted_answer"], letter["answer_cot"]) == ("c", "c", None)
    bare = tuple(replace(prediction, status=None, tokens=None) for prediction in ITEM.predictions)
    assert read_samples(file) == [replace(ITEM, predictions=bare), choice], "all but what only the lines say"
    assert to_authors_list(read_samples(file)) == file.read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no samples"),
        ("{broken", "broken JSON at line 1"),
        (to_line(ITEM) + '{"item_id": "x"}\n', "line 2 is not a sampled question"),
        ('[{"item_id": "x", "question": "q", "answer_value": "1", "predictions": [{}]}]', "item 1 is not a sampled question"),
        ("[1]", "item 1 is not a sampled question"),
    ],
)
def test_a_bad_file_is_one_sentence(text, sentence, tmp_path):
    file = tmp_path / "s.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_samples(file)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"reft-pl predict --config configs/sample\.yaml"):
        read_samples(tmp_path / "none.jsonl")


def test_a_number_of_hundreds_of_digits_is_not_an_answer(tmp_path):
    file = tmp_path / "s.json"
    row = {"item_id": "gsm8k_1", "question": " How many? ", "answer_value": "1"}
    file.write_text(json.dumps([{**row, "predictions": [{"completion": "p", "solving_res": 10**400, "correctness": False}]}]))
    (item,) = read_samples(file)
    assert item.answers == [None]
    assert item.question == "How many?", "as sources have it"

from __future__ import annotations

import json
import logging

import pytest

from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.data.sources import AuthorsJson, Gsm8kOfficial
from reft_pl.errors import UserError

GOOD = {"item_id": "svamp_1", "question": " How many? ", "answer_cot": "One.", "answer_value": "1,203.0"}


def authors(tmp_path, *rows, **settings):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(list(rows)))
    return AuthorsJson(str(path), **settings)


def test_authors_json(tmp_path):
    (problem,) = authors(tmp_path, GOOD).load()
    assert (problem.id, problem.question, problem.answer, problem.solution) == ("svamp_1", "How many?", 1203.0, "One.")
    (bare,) = authors(tmp_path, GOOD, solutions=False).load()
    assert bare.solution is None


@pytest.mark.parametrize(
    ("item_id", "value", "answer"),
    [
        ("mathqa_1", "B", "b"),
        ("mathqa-numeric_1", "38.0", 38.0),
        ("aqua_1", "c", "c"),
        ("aqua_2", "5", 5.0),
        ("gsm8k_1", 18, 18.0),
    ],
)
def test_the_item_id_names_the_kind_of_answer(tmp_path, item_id, value, answer):
    (problem,) = authors(tmp_path, {**GOOD, "item_id": item_id, "answer_value": value}).load()
    assert problem.answer == answer


@pytest.mark.parametrize(
    ("change", "message", "reason"),
    [
        ({"answer_value": None}, r"item 2 \(svamp_2\) has no answer", "1 no answer"),
        ({"answer_value": " "}, r"item 2 \(svamp_2\) has no answer", "1 no answer"),
        ({"answer_value": "many"}, "'many', which is not a finite number", "1 non-numeric answer"),
        ({"answer_value": "b"}, "'b', which is not a finite number", "1 non-numeric answer"),
        ({"answer_value": "nan"}, "not a finite number", "1 non-numeric answer"),
        ({"answer_value": [1]}, "not a finite number", "1 non-numeric answer"),
        ({"item_id": "mathqa_2", "answer_value": "5"}, "not a choice from a to e", "1 answer is not a choice"),
        ({"item_id": "mathqa_2", "answer_value": "F"}, "'F', which is not a choice from a to e", "1 answer is not a choice"),
        ({"item_id": "aqua_2", "answer_value": "g"}, "'g', which is not a choice from a to e", "1 answer is not a choice"),
        ({"item_id": "svamp_1"}, "item 2 has the id 'svamp_1' of an earlier row", "1 duplicate id"),
        ({"item_id": None}, "item 2 has no id", "1 no id"),
        ({"question": ""}, "has no question", "1 no question"),
        ({"question": "\ud800 how?"}, "surrogate", "1 not Unicode"),
    ],
)
def test_bad_rows_raise_or_are_counted(tmp_path, caplog, change, message, reason):
    rows = [GOOD, {**GOOD, "item_id": "svamp_2", **change}]
    with pytest.raises(UserError, match=message) as error:
        authors(tmp_path, *rows).load()
    assert "\n" not in str(error.value)
    assert "rows.json" in str(error.value)
    with caplog.at_level(logging.WARNING):
        assert [p.id for p in authors(tmp_path, *rows, on_bad_row="skip").load()] == ["svamp_1"]
    assert f"skipped 1 rows ({reason}), kept 1" in caplog.text


def test_rows_that_are_not_objects(tmp_path):
    with pytest.raises(UserError, match="item 1 is not a JSON object"):
        authors(tmp_path, "text").load()


def test_limit_and_emptiness(tmp_path):
    rows = [{**GOOD, "item_id": f"svamp_{i}"} for i in range(5)]
    assert len(authors(tmp_path, *rows, limit=3).load()) == 3
    with pytest.raises(UserError, match="has no problems"):
        authors(tmp_path).load()
    with pytest.raises(UserError, match="every row was skipped"):
        authors(tmp_path, {**GOOD, "question": ""}, on_bad_row="skip").load()


@pytest.mark.parametrize("source", [AuthorsJson, Gsm8kOfficial, HFDatasetSource])
def test_a_missing_file_is_named(tmp_path, source):
    with pytest.raises(UserError, match=r"file not found: .*nowhere\.json"):
        source(str(tmp_path / "nowhere.json")).load()


def test_broken_files_are_named_by_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('[\n  {"item_id": "svamp_1",\n   "question" "x"}\n]')
    with pytest.raises(UserError, match=r"broken\.json: broken JSON at line 3"):
        AuthorsJson(str(path)).load()
    path.write_text('{"a": 1}')
    with pytest.raises(UserError, match="is not a list of rows"):
        AuthorsJson(str(path)).load()
    path.write_bytes(b'["\xff"]')
    with pytest.raises(UserError, match="not UTF-8"):
        AuthorsJson(str(path)).load()
    with pytest.raises(UserError, match="cannot read"):
        AuthorsJson(str(tmp_path)).load()


def test_gsm8k_lines(tmp_path, caplog):
    path = tmp_path / "gsm.jsonl"
    lines = [
        json.dumps({"question": "Q", "answer": "48/2 = <<48/2=24>>24\u2028 clips.\n#### 1,024"}),
        "",
        "{broken",
        json.dumps({"question": "Q", "answer": "no marker"}),
        json.dumps({"question": "R", "answer": "x\n#### -5"}),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match="broken JSON at line 3"):
        Gsm8kOfficial(str(path)).load()
    first, last = Gsm8kOfficial(str(path), on_bad_row="skip", prefix="g").load()
    assert (first.id, first.answer, first.solution) == ("g_0", 1024.0, "48/2 = 24\u2028 clips.")
    assert (last.id, last.answer) == ("g_3", -5.0)
    assert "skipped 2 rows (1 broken JSON, 1 no answer), kept 2" in caplog.text


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("svamp_python_sdp.json", 3043),
        ("svamp_nl.json", 3076),
        ("svamp_test_set.json", 1000),
        ("gsm8k_test_set.json", 1319),
        ("mathqa_test_set.json", 1605),
        ("mathqa-numeric_test_set.json", 1605),
    ],
)
def test_the_public_files_are_read_whole(shared, name, count):
    problems = AuthorsJson(str(shared / "data" / name)).load()
    assert len(problems) == count
    assert {type(p.answer) for p in problems} == ({str} if name.startswith("mathqa_") else {float})


def test_gsm8k_as_released(shared):
    train = Gsm8kOfficial(str(shared / "data" / "gsm8k_official_train.jsonl")).load()
    test = Gsm8kOfficial(str(shared / "data" / "gsm8k_official_test.jsonl")).load()
    assert (len(train), len(test)) == (7473, 1319)
    assert not any("<<" in (p.solution or "") or "####" in (p.solution or "") for p in train)
    authors_test = AuthorsJson(str(shared / "data" / "gsm8k_test_set.json")).load()
    assert [p.answer for p in test] == [p.answer for p in authors_test]


def test_columns_of_authors_json(tmp_path):
    (problem,) = authors(tmp_path, GOOD | {"level": 3}, columns={"difficulty": "level"}).load()
    assert dict(problem.columns) == {"difficulty": 3}
    with pytest.raises(UserError, match="item 2 has no column 'level' for level"):
        authors(tmp_path, GOOD | {"level": 3}, GOOD | {"item_id": "svamp_2"}, columns=["level"]).load()

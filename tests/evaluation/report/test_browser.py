import json
from typing import Any

from reft_pl.evaluation.report.browser import browser_data, chosen
from reft_pl.evaluation.report.runs import read_runs


def shown(run: Any, limit: int = 100) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the browser's data, and its rows with names instead of indices."""
    data = browser_data(read_runs([run.folder]), limit)
    names = ("question", "run", "origin", "status", "text", "correct", "answer", "batch", "count")
    rows = [dict(zip(names, row, strict=True)) for row in data["rows"]]
    for row in rows:
        row["question"] = data["questions"][row["question"]][:2]
        row["origin"] = data["origins"][row["origin"]]
        row["status"] = data["statuses"][row["status"]] if row["status"] >= 0 else None
        row["text"] = data["texts"][row["text"]]
    return data, rows


def test_greedy_sampled_and_rolled_out(reft: Any) -> None:
    data, rows = shown(reft)
    assert [row["origin"] for row in rows].count("greedy") == 4
    assert data["left_out"] == []
    assert data["questions"][0] == ("ordinary", "q0", "What is q0?", "1")
    assert rows[1] == {
        "question": ("ordinary", "q0"), "run": 0, "origin": "sampled", "status": "ok", "text": "a", "correct": 1, "answer": "1",
        "batch": None, "count": 2,
    }  # fmt: skip
    rollouts = [row for row in rows if row["origin"] == "rollout"]
    assert [(row["question"][1], row["batch"], row["correct"]) for row in rollouts] == [
        ("t0", 0, 0), ("t0", 1, 0), ("t1", 0, 1), ("t1", 1, 1)
    ]  # fmt: skip


def test_omitted_questions_are_counted_and_equal_across_files(reft: Any) -> None:
    data, rows = shown(reft, limit=3)
    kept = {part["origin"]: (part["kept"], part["of"]) for part in data["left_out"]}
    assert kept == {"greedy": (3, 4), "sampled": (4, 8), "rollout": (2, 4)}, "one question of the samples at least"
    greedy = {row["question"][1] for row in rows if row["origin"] == "greedy"}
    assert {row["question"][1] for row in rows if row["origin"] == "sampled"} <= greedy | {"q1"}


def test_a_smaller_choice_is_a_subset_of_a_larger_one() -> None:
    counts = {f"q{i}": 3 for i in range(50)}
    small, large = chosen(counts, 20), chosen(counts, 60)
    assert len(small) == 6
    assert len(large) == 20
    assert small < large
    assert max(int(item[1:]) for item in small) > 25, "they are spread over the file"


def test_samples_of_other_programs_have_no_status(new_run: Any) -> None:
    run = new_run("theirs")
    row = {"item_id": "gsm8k_1", "question": "?", "answer_value": "1,000", "predictions": [
        {"completion": "def solution():", "solving_res": None, "correctness": False}]}  # fmt: skip
    (run.folder / "samples").mkdir()
    (run.folder / "samples" / "test.jsonl").write_text(json.dumps([row]))
    data, rows = shown(run)
    assert data["questions"] == [("test", "gsm8k_1", "?", "1000")]
    assert (rows[0]["status"], rows[0]["answer"]) == (None, None)


def test_an_incomplete_rollout_is_skipped(reft: Any) -> None:
    with (reft.folder / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 2, "id": "t9", "quest')
    assert len([row for row in shown(reft)[1] if row["origin"] == "rollout"]) == 4

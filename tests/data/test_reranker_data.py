"""Training data of the reranker: distinct solutions with their counts, groups, and samples from several files."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from reft_pl.data.reranker_data import as_groups, candidates, mixed_groups, read_sets
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.errors import UserError


def question(name: str, texts: Sequence[str], text: str = "How many?") -> SampledQuestion:
    """Build a question with samples; a text that starts with ``c`` is correct."""
    predictions = [Prediction(body, 1.0 if body.startswith("c") else 2.0, body.startswith("c")) for body in texts]
    return SampledQuestion(name, text, 1.0, tuple(predictions))


def file(path: Path, *items: SampledQuestion) -> str:
    path.write_text("".join(map(to_line, items)))
    return str(path)


def test_candidates_are_the_distinct_solutions_with_their_counts() -> None:
    found = candidates([question("a", ["c1", "w1", "c1", "c1"]), question("b", ["c1"])])
    assert [(c.problem.id, c.text, c.correct, c.count) for c in found] == [
        ("a", "c1", True, 3), ("a", "w1", False, 1), ("b", "c1", True, 1)
    ]  # fmt: skip


def test_groups_have_correct_and_wrong_solutions() -> None:
    found = candidates([question("a", ["c1", "w1", "w2"]), question("b", ["c1", "c2"]), question("c", ["w1"])])
    groups = mixed_groups(found)
    assert [[c.text for c in group] for group in groups] == [["c1", "w1", "w2"]]
    assert as_groups(groups) == groups
    assert as_groups(found[:2]) == [[found[0]], [found[1]]]


def test_samples_of_two_policies_become_one_set(tmp_path: Path) -> None:
    first = file(tmp_path / "sft.jsonl", question("a", ["c1", "w1"]), question("b", ["w1", "w2"], "Why?"))
    second = file(tmp_path / "ppo.jsonl", question("a", ["c1", "c2", "w3"]), question("d", ["c1", "c1", "c1"]))
    train = read_sets({"train": [first, second]})["train"]
    assert [(item.id, [p.text for p in item.predictions]) for item in train] == [
        ("a", ["c1", "w1", "c1", "c2", "w3"]), ("b", ["w1", "w2"]), ("d", ["c1", "c1", "c1"])
    ]  # fmt: skip


def test_what_several_files_may_not_be(tmp_path: Path) -> None:
    first = file(tmp_path / "1.jsonl", question("a", ["c1"]))
    other = file(tmp_path / "2.jsonl", question("a", ["c1"], "Another question?"))
    with pytest.raises(UserError, match="two different questions with the id 'a'"):
        read_sets({"train": [first, other]})
    with pytest.raises(UserError, match=r"data\.samples\.ordinary names 2 files"):
        read_sets({"ordinary": [first, first]})
    uneven = file(tmp_path / "3.jsonl", question("a", ["c1"]), question("b", ["c1", "w1"]))
    with pytest.raises(UserError, match="between 1 and 2 samples per question"):
        read_sets({"train": [first, uneven]})

"""What the model of a run wrote, from the three kinds of file that hold it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reft_pl.data.sample_file import SampledQuestion, read_samples
from reft_pl.evaluation.files import read_predictions
from reft_pl.evaluation.report.runs import Run
from reft_pl.formats.answers import answers_equal
from reft_pl.formats.parsing import answer_text
from reft_pl.types import Answer


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a set with its gold answer."""

    set_name: str
    id: str
    text: str
    gold: str


@dataclass(frozen=True, slots=True)
class Solution:
    """What was written for a question, and what came of it.

    ``status`` is None where it was not recorded; ``batch``, the number of training batches before it, outside training.
    """

    question: Question
    right: bool
    status: str | None
    answer: str | None
    text: str
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One file of solutions.

    ``counts`` are their numbers by question id; ``read`` gives those of the questions that are asked for, in the file's order.
    """

    origin: str
    set_name: str
    counts: Mapping[str, int]
    read: Callable[[Container[str]], Iterator[Solution]]


def sources(run: Run) -> Iterator[Source]:
    """The files of a run that hold solutions."""
    for path in run.prediction_files:
        rows = read_predictions(path)
        yield Source("greedy", path.stem, Counter(row["item_id"] for row in rows), partial(_greedy, path.stem, rows))
    for path in run.sample_files:
        items = read_samples(path)
        counts = {item.id: len(item.predictions) for item in items}
        yield Source("sampled", path.stem, counts, partial(_sampled, path.stem, items))
    if rollouts := run.rollout_file:
        yield Source("rollout", "train", Counter(row["id"] for row in _rollout_rows(rollouts)), partial(_rollouts, rollouts))


def _greedy(set_name: str, rows: list[dict[str, Any]], ids: Container[str]) -> Iterator[Solution]:
    for row in rows:
        if row["item_id"] in ids:
            question = Question(set_name, row["item_id"], row["question"], _shown(row["gold"]) or "")
            yield Solution(question, row["correct"], row["status"], _shown(row["answer"]), row["response"])


def _sampled(set_name: str, items: list[SampledQuestion], ids: Container[str]) -> Iterator[Solution]:
    for item in items:
        if item.id in ids:
            question = Question(set_name, item.id, item.question, _shown(item.gold) or "")
            for p in item.predictions:
                yield Solution(question, p.correct, p.status, _shown(p.answer), p.text)


def _rollouts(path: Path, ids: Container[str]) -> Iterator[Solution]:
    for row in _rollout_rows(path):
        if row["id"] in ids:
            question = Question("train", row["id"], row["question"], _shown(row["gold"]) or "")
            right = answers_equal(row["value"], row["gold"])
            yield Solution(question, right, row["status"], _shown(row["value"]), row["text"], row["step"])


def _rollout_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines, one at a time, for there may be many; the last may be being written."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _shown(answer: Answer | None) -> str | None:
    """As people write it: no ".0", no digits beyond those that tell answers apart."""
    return answer if answer is None or isinstance(answer, str) else answer_text(round(float(answer), 6))

"""Read the solutions of a run from its predictions, samples and rollouts."""

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
    """A question with its set and gold answer."""

    set_name: str
    id: str
    text: str
    gold: str


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution to a question, with its outcome.

    ``status`` is None if it was not recorded. ``batch`` is the number of training batches before it, None outside training.
    """

    question: Question
    correct: bool
    status: str | None
    answer: str | None
    text: str
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One file of solutions.

    ``counts`` holds the number of solutions by question id; ``read`` yields the solutions of the requested questions in file
    order.
    """

    origin: str
    set_name: str
    counts: Mapping[str, int]
    read: Callable[[Container[str]], Iterator[Solution]]


def sources(run: Run) -> Iterator[Source]:
    """Yield the files of a run that hold solutions."""
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
            correct = answers_equal(row["value"], row["gold"])
            yield Solution(question, correct, row["status"], _shown(row["value"]), row["text"], row["step"])


def _rollout_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows one at a time, since there may be many; skip a last line that is still being written."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _shown(answer: Answer | None) -> str | None:
    """Format an answer for people: no ".0", no digits beyond the ones that distinguish answers."""
    return answer if answer is None or isinstance(answer, str) else answer_text(round(float(answer), 6))

"""Read and write files of sampled solutions: JSON lines, or the JSON list of the ReFT authors' scripts.

Both have the authors' fields: ``item_id``, ``question``, ``answer_value`` (text), ``answer_cot``, ``predictions`` (each with
``completion``, ``solving_res`` and ``correctness``), ``most_voted_answer``, ``is_correct``. reft-pl works with JSON lines, one
per question: they can be appended to, and each prediction also has ``status`` and ``tokens``. The list is for the authors'
scripts and other programs that read that format. ``read_samples`` reads both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reft_pl.choices import CHOICES
from reft_pl.data.files import RowError, read_json_rows
from reft_pl.data.text import stated_number
from reft_pl.errors import UserError
from reft_pl.formats.answers import is_answer_to, is_correct, most_voted
from reft_pl.types import Answer, Sample


@dataclass(frozen=True, slots=True)
class Prediction:
    """One sampled solution: its whole text, its answer (None without a valid one), whether it is correct.

    ``status`` and ``tokens`` are None in files that other programs wrote.
    """

    text: str
    answer: Answer | None
    correct: bool
    status: str | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SampledQuestion:
    """A question with its reference answer and its samples, in sampling order."""

    id: str
    question: str
    gold: Answer
    predictions: tuple[Prediction, ...]
    solution: str | None = None

    @property
    def answers(self) -> list[Answer | None]:
        """[n] answers, None without a valid one."""
        return [prediction.answer for prediction in self.predictions]

    @property
    def verdicts(self) -> list[bool]:
        """[n] whether each prediction is correct."""
        return [prediction.correct for prediction in self.predictions]


def sampled_question(samples: Sequence[Sample]) -> SampledQuestion:
    """Summarise the samples of one problem; its reference answer must be known."""
    problem = samples[0].problem
    assert problem.answer is not None
    predictions = tuple(
        Prediction(
            sample.text,
            sample.result.value if is_answer_to(sample.result.value, problem.answer) else None,
            is_correct(sample),
            sample.result.status.value,
            len(sample.completion.token_ids),
        )
        for sample in samples
    )
    return SampledQuestion(problem.id, problem.question, problem.answer, predictions, problem.solution)


def to_line(item: SampledQuestion) -> str:
    """Serialise the item as one line of a sample file, newline included."""
    row = _authors_row(item)
    for entry, p in zip(row["predictions"], item.predictions, strict=True):
        entry |= {"status": p.status, "tokens": p.tokens}
    return json.dumps(row, ensure_ascii=False) + "\n"


def to_authors_list(items: Iterable[SampledQuestion]) -> str:
    """Serialise the items like the authors' ``sampling.py``: one JSON list with only their fields, indented by 4."""
    return json.dumps([_authors_row(item) for item in items], ensure_ascii=False, indent=4)


def _authors_row(item: SampledQuestion) -> dict[str, Any]:
    voted = most_voted(item.answers)
    return {
        "item_id": item.id,
        "question": item.question,
        "answer_value": item.gold if isinstance(item.gold, str) else repr(float(item.gold)),
        "answer_cot": item.solution,
        "predictions": [{"completion": p.text, "solving_res": p.answer, "correctness": p.correct} for p in item.predictions],
        "most_voted_answer": None if voted is None else item.predictions[voted].answer,
        "is_correct": voted is not None and item.predictions[voted].correct,
    }


def read_samples(path: Path) -> list[SampledQuestion]:
    """Read the questions of a sample file: JSON lines, or the JSON list of the authors' scripts.

    Raises:
        UserError: the file does not exist, has no questions, or has a malformed one.
    """
    if not path.is_file():
        raise UserError(f"there are no samples at {path}: create them with `reft-pl predict --config configs/sample.yaml`")
    items = [_item(path, place, row) for place, row in _rows(path)]
    if not items:
        raise UserError(f"{path} has no samples: delete it and sample again")
    return items


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    for place, row in read_json_rows(path):
        if isinstance(row, RowError):
            raise UserError(f"{path}, {place} is not a sampled question ({row.detail}): delete it and sample again")
        yield place, row


def _item(path: Path, place: str, row: Any) -> SampledQuestion:
    try:
        gold = _gold(row["answer_value"], row["item_id"])
        predictions = tuple(_prediction(entry, gold) for entry in row["predictions"])
        return SampledQuestion(str(row["item_id"]), str(row["question"]).strip(), gold, predictions, row.get("answer_cot"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}, {place} is not a sampled question ({reason}): delete it and sample again") from None


def _gold(value: Any, item_id: Any) -> Answer:
    text = str(value).strip().lower()
    if len(text) == 1 and text in CHOICES:
        return text
    if str(item_id).startswith("mathqa_"):
        raise ValueError(f"answer_value {text[:20]!r} is not a choice from {CHOICES[0]} to {CHOICES[-1]}")
    number = stated_number(text)
    if number is None:
        raise ValueError(f"answer_value {text[:20]!r} is not a finite number such as 1.5 or 1,500")
    return number


def _prediction(entry: dict[str, Any], gold: Answer) -> Prediction:
    value = entry["solving_res"]
    if isinstance(value, str):
        value = value.strip().lower()
    answer = value if is_answer_to(value, gold) else None
    return Prediction(str(entry["completion"]), answer, bool(entry["correctness"]), entry.get("status"), entry.get("tokens"))

"""Training data of the reranker: the distinct solutions sampled for each question, labelled correct or incorrect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reft_pl.data.sample_file import SampledQuestion, read_samples
from reft_pl.errors import UserError
from reft_pl.types import Problem


@dataclass(frozen=True, slots=True)
class Candidate:
    """One solution of a problem; ``correct`` is whether its answer is correct."""

    problem: Problem
    text: str
    correct: bool


def candidates(items: Iterable[SampledQuestion]) -> list[Candidate]:
    """Return the distinct solutions of each question, in sampling order."""
    found = []
    for item in items:
        problem = as_problem(item)
        verdicts: dict[str, bool] = {}
        for prediction in item.predictions:
            verdicts.setdefault(prediction.text, prediction.correct)
        found += [Candidate(problem, text, correct) for text, correct in verdicts.items()]
    return found


def as_problem(item: SampledQuestion) -> Problem:
    """Return the sampled question as a problem."""
    return Problem(item.id, item.question, item.gold, item.solution)


def read_sets(files: Mapping[str, str], names: Iterable[str]) -> dict[str, list[SampledQuestion]]:
    """Read the sampled questions of the named sets.

    Raises:
        UserError: a file cannot be read, or the questions of one set have different numbers of samples.
    """
    sets = {}
    for name in names:
        items = read_samples(Path(files[name]))
        counts = {len(item.predictions) for item in items}
        if len(counts) > 1:
            raise UserError(
                f"{files[name]} has between {min(counts)} and {max(counts)} samples per question: "
                "run `reft-pl predict` again to complete it"
            )
        sets[name] = items
    return sets

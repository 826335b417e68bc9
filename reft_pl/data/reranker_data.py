"""What a reranker learns from: the different solutions that were sampled for a question, each right or wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reft_pl.data.sample_file import SampledQuestion, read_samples
from reft_pl.errors import UserError
from reft_pl.types import Problem


@dataclass(frozen=True, slots=True)
class Candidate:
    """One solution of a problem, and whether its executed answer is the problem's."""

    problem: Problem
    text: str
    right: bool


def candidates(items: Iterable[SampledQuestion]) -> list[Candidate]:
    """The different solutions of each question, in sampling order."""
    found = []
    for item in items:
        problem = as_problem(item)
        verdicts: dict[str, bool] = {}
        for prediction in item.predictions:
            verdicts.setdefault(prediction.text, prediction.correct)
        found += [Candidate(problem, text, right) for text, right in verdicts.items()]
    return found


def as_problem(item: SampledQuestion) -> Problem:
    """The problem that was sampled."""
    return Problem(item.id, item.question, item.gold, item.solution)


def read_sets(files: Mapping[str, str], names: Iterable[str]) -> dict[str, list[SampledQuestion]]:
    """The sampled questions of the sets of these names.

    Raises:
        UserError: a file cannot be read, or the questions of one set have different numbers of samples.
    """
    sets = {}
    for name in names:
        items = read_samples(Path(files[name]))
        counts = {len(item.predictions) for item in items}
        if len(counts) > 1:
            raise UserError(
                f"{files[name]} has between {min(counts)} and {max(counts)} samples a question: let `reft-pl predict` finish it"
            )
        sets[name] = items
    return sets

"""Training data of the reranker: the distinct solutions sampled for each question, labelled correct or incorrect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reft_pl.data.sample_file import SampledQuestion, read_samples
from reft_pl.errors import UserError
from reft_pl.types import Problem


@dataclass(frozen=True, slots=True)
class Candidate:
    """A distinct solution of a problem; ``correct`` is whether its answer is correct, ``count`` how often it was sampled."""

    problem: Problem
    text: str
    correct: bool
    count: int = 1


def candidates(items: Iterable[SampledQuestion]) -> list[Candidate]:
    """Return the distinct solutions of each question, in sampling order."""
    found = []
    for item in items:
        problem = as_problem(item)
        verdicts: dict[str, bool] = {}
        for prediction in item.predictions:
            verdicts.setdefault(prediction.text, prediction.correct)
        counts = Counter(prediction.text for prediction in item.predictions)
        found += [Candidate(problem, text, correct, counts[text]) for text, correct in verdicts.items()]
    return found


def mixed_groups(found: Iterable[Candidate]) -> list[list[Candidate]]:
    """Group candidates by problem; a problem with only correct or only wrong solutions is left out."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in found:
        groups.setdefault(candidate.problem.id, []).append(candidate)
    return [group for group in groups.values() if len({candidate.correct for candidate in group}) == 2]


def as_groups(batch: Sequence[Candidate] | Sequence[Sequence[Candidate]]) -> list[Sequence[Candidate]]:
    """Return a batch of solutions as groups of one, a batch of groups unchanged."""
    return [[item] if isinstance(item, Candidate) else item for item in batch]


def as_problem(item: SampledQuestion) -> Problem:
    """Return the sampled question as a problem."""
    return Problem(item.id, item.question, item.gold, item.solution)


def read_sets(files: Mapping[str, str | Sequence[str]]) -> dict[str, list[SampledQuestion]]:
    """Read the sampled questions of every set.

    Several files of a set, such as samples of two policies, are joined; a question in several files has the samples of all.

    Raises:
        UserError: a file cannot be read, or its questions have different numbers of samples, or two files have different
            questions of the same id, or a set to evaluate has several files.
    """
    sets = {}
    for name, paths in files.items():
        if isinstance(paths, str):
            sets[name] = _read(paths)
        elif name == "train":
            sets[name] = _joined([item for path in paths for item in _read(path)])
        else:
            raise UserError(f"data.samples.{name} names {len(paths)} files, but only data.samples.train may have several")
    return sets


def _read(path: str) -> list[SampledQuestion]:
    items = read_samples(Path(path))
    counts = {len(item.predictions) for item in items}
    if len(counts) > 1:
        raise UserError(
            f"{path} has between {min(counts)} and {max(counts)} samples per question: "
            "run `reft-pl predict` again to complete it"
        )
    return items


def _joined(items: Iterable[SampledQuestion]) -> list[SampledQuestion]:
    """Join the samples of each question."""
    joined: dict[str, SampledQuestion] = {}
    for item in items:
        known = joined.setdefault(item.id, item)
        if known is not item:
            if known.question != item.question:
                raise UserError(f"the files of data.samples.train have two different questions with the id {item.id!r}")
            joined[item.id] = replace(known, predictions=known.predictions + item.predictions)
    return list(joined.values())

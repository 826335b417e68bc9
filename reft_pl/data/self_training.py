"""Data source of offline self-training: annotated solutions plus correct sampled ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from reft_pl.data.codec import Codec
from reft_pl.data.sample_file import SampledQuestion, read_samples
from reft_pl.data.sources import ProblemSource
from reft_pl.errors import UserError
from reft_pl.types import Problem

logger = logging.getLogger(__name__)


class SelfTraining(ProblemSource):
    """Annotated problems, each followed by copies with the correct solutions that a policy sampled.

    With this as its training source, SFT becomes the paper's offline self-training. For each question it takes the first
    ``per_question`` distinct correct samples in sampling order, without any text after the part that gave the answer. The
    annotated solution appears once, and a question without one has only sampled solutions. Samples of questions outside
    ``annotated`` are ignored. Correct samples that do not fit the
    format, or are too long, are dropped and counted.

    Args:
        annotated: Source of the problems, with annotated solutions or without.
        samples: A file that ``reft-pl predict`` wrote for these questions, or one in the authors' file format.
        per_question: Maximum number of sampled solutions per question (the paper's authors use 10 of 100).
    """

    def __init__(self, annotated: ProblemSource, samples: str, per_question: int = 10) -> None:
        if per_question < 1:
            raise UserError(f"per_question={per_question} takes no samples: set it to at least 1")
        self.annotated = annotated
        self.samples = Path(samples)
        self.per_question = per_question

    @property
    def name(self) -> str:
        """The names of the annotated source and the sample file."""
        return f"{self.annotated.name} with samples of {self.samples}"

    def load(self) -> list[Problem]:
        """Return only the annotated problems; extracting solutions from samples needs a format, see ``load_for``."""
        return self.annotated.load()

    def load_for(self, codec: Codec) -> list[Problem]:
        """Read problems and samples. A sampled copy has its problem's id with ``+1``, ``+2``, ... appended."""
        sampled = {item.id: item for item in read_samples(self.samples)}
        problems: list[Problem] = []
        n_unfit = 0
        for problem in self.annotated.load():
            if problem.solution is not None:
                problems.append(problem)
            item = sampled.get(problem.id)
            if item is None:
                continue
            if item.question != problem.question:
                raise UserError(
                    f"{self.samples} has another question than {self.annotated.name} under the id {problem.id!r}: "
                    "sample the questions of this source"
                )
            copies, unfit = self._copies(problem, item, codec)
            problems += copies
            n_unfit += unfit
        if n_unfit:
            logger.warning("%s: left out %d correct samples that are too long or do not fit the format", self.samples, n_unfit)
        return problems

    def _copies(self, problem: Problem, item: SampledQuestion, codec: Codec) -> tuple[list[Problem], int]:
        """Return copies of the problem with sampled solutions, and the number of unusable correct samples."""
        # Solutions are duplicates if their training tokens are equal, whatever their docstring and blank lines.
        seen = set() if problem.solution is None else {codec.examples([problem])[0].ids}
        copies: list[Problem] = []
        unfit = 0
        for text in (prediction.text for prediction in item.predictions if prediction.correct):
            solution = codec.format.solution_in(problem, text)
            copy = replace(problem, id=f"{problem.id}+{len(copies) + 1}", solution=solution)
            try:
                ids = codec.example(copy).ids
            except UserError:
                unfit += 1
                continue
            if ids not in seen:
                seen.add(ids)
                copies.append(copy)
            if len(copies) == self.per_question:
                break
        return copies, unfit

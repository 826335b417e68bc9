"""Offline self-training: the annotated solutions together with right ones that a policy wrote."""

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
    """Annotated problems, each followed by copies of it with solutions that a policy sampled for it and that are right.

    Used as a training source it makes SFT the paper's offline self-training. Of a question's samples it takes the first
    ``per_question`` different right ones in sampling order, each without what follows the part that gave its answer; the
    annotated solution is there once. Samples of questions that ``annotated`` lacks are left out, and so are, with a count,
    right ones that are no training example: not of the form, or too long.

    Args:
        annotated: source of the annotated problems.
        samples: file that ``reft-pl predict`` wrote for these questions, or one in the authors' form.
        per_question: how many sampled solutions a question gets at most (authors: 10 of 100).
    """

    def __init__(self, annotated: ProblemSource, samples: str, per_question: int = 10) -> None:
        if per_question < 1:
            raise UserError(f"per_question={per_question} takes no samples: set it to at least 1")
        self.annotated = annotated
        self.samples = Path(samples)
        self.per_question = per_question

    @property
    def name(self) -> str:
        """The sources of both."""
        return f"{self.annotated.name} with samples of {self.samples}"

    def load(self) -> list[Problem]:
        """The annotated problems alone: what of a sample is its solution, only a form can tell."""
        return self.annotated.load()

    def load_for(self, codec: Codec) -> list[Problem]:
        """Read both; a sampled copy has the id of its problem and ``+1``, ``+2``, ..."""
        sampled = {item.id: item for item in read_samples(self.samples)}
        problems: list[Problem] = []
        n_unfit = 0
        for problem in self.annotated.load():
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
            logger.warning(
                "%s: left out %d right samples that are too long or not of the form to learn from", self.samples, n_unfit
            )
        return problems

    def _copies(self, problem: Problem, item: SampledQuestion, codec: Codec) -> tuple[list[Problem], int]:
        """The problem with sampled solutions to learn from, and how many right samples on the way there make none."""
        # What training would see decides whether two solutions are one: docstring and blank lines do not.
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

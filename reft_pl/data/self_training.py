"""Offline self-training: the annotated solutions together with right ones that a policy wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reft_pl.data.sample_file import SampledQuestion, read_samples
from reft_pl.data.sources import ProblemSource
from reft_pl.errors import UserError
from reft_pl.types import Problem


class SelfTraining(ProblemSource):
    """Annotated problems, each followed by copies of it with solutions that a policy sampled for it and that are right.

    Used as a training source it makes SFT the paper's offline self-training. Of a question's samples it takes the first
    ``per_question`` different right ones in sampling order; the annotated solution is there once. Samples of questions that
    ``annotated`` lacks are left out.

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
        """Read both; a sampled copy has the id of its problem and ``+1``, ``+2``, ..."""
        sampled = {item.id: item for item in read_samples(self.samples)}
        problems = []
        for problem in self.annotated.load():
            item = sampled.get(problem.id)
            if item and item.question != problem.question:
                raise UserError(
                    f"{self.samples} has another question than {self.annotated.name} under the id {problem.id!r}: "
                    "sample the questions of this source"
                )
            found = right_solutions(item, problem.solution, self.per_question) if item else []
            problems.append(problem)
            problems += [replace(problem, id=f"{problem.id}+{n}", solution=text) for n, text in enumerate(found, 1)]
        return problems


def right_solutions(item: SampledQuestion, annotated: str | None, limit: int) -> list[str]:
    """The first ``limit`` different right solutions that are not the annotated one."""
    texts = dict.fromkeys(p.text.strip() for p in item.predictions if p.correct)
    texts.pop((annotated or "").strip(), None)
    return list(texts)[:limit]

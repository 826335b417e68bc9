"""The embedded default as a source of problems."""

from __future__ import annotations

from typing import Literal

from reft_pl.data.sources import ProblemSource
from reft_pl.data.stories.generator import make_problem
from reft_pl.errors import UserError
from reft_pl.types import Problem


class StorySource(ProblemSource):
    """Generated story problems: people, things, numbers, two to four steps.

    Problem number k of a split is always the same one, so that sources with different ``start`` share nothing where their
    windows do not meet. The splits train, validation and test never share a question; unseen holds situations and orders of
    operation that they never have. A piece of a seen situation has 1.3 to 2.0 wordings on average, by situation; one of an
    unseen situation has a single wording.

    Args:
        split: which problems: train, validation, test or unseen.
        size: how many.
        start: number of the first one.
        seed: another seed gives other problems, in the same situations.
        solutions: whether to give the annotated solutions; false leaves questions and answers.
    """

    def __init__(
        self,
        split: Literal["train", "validation", "test", "unseen"],
        size: int,
        start: int = 0,
        seed: int = 0,
        solutions: bool = True,
    ) -> None:
        if size < 1 or start < 0:
            raise UserError(f"StorySource needs size >= 1 and start >= 0, got size={size} and start={start}")
        self.split: Literal["train", "validation", "test", "unseen"] = split
        self.size = size
        self.start = start
        self.seed = seed
        self.solutions = solutions

    @property
    def name(self) -> str:
        """The split and the window."""
        return f"stories ({self.split} {self.start}-{self.start + self.size - 1}, seed {self.seed})"

    def load(self) -> list[Problem]:
        """Make the problems."""
        numbers = range(self.start, self.start + self.size)
        return [make_problem(self.split, number, self.seed, solution=self.solutions) for number in numbers]

"""The problem source of generated stories, the built-in default dataset."""

from __future__ import annotations

from typing import Literal

from reft_pl.data.sources import ProblemSource
from reft_pl.data.stories.generator import make_problem
from reft_pl.errors import UserError
from reft_pl.types import Problem


class StorySource(ProblemSource):
    """Generated story problems: people, things, numbers, two to four operations.

    Problem k of a split is always the same, so sources with non-overlapping windows (``start``, ``size``) share no problem. The
    splits train, validation and test never share a question; unseen has situations and operator sequences that the others never
    have. A piece of a seen situation has 1.3 to 2.0 wordings on average, depending on the situation; a piece of an unseen
    situation has a single wording.

    Args:
        split: Split to generate: train, validation, test or unseen.
        size: Number of problems.
        start: Index of the first problem.
        seed: Seed of the generator; another seed gives other problems in the same situations.
        solutions: Include the annotated solutions; false gives only questions and answers.
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
        """The split, window and seed."""
        return f"stories ({self.split} {self.start}-{self.start + self.size - 1}, seed {self.seed})"

    def load(self) -> list[Problem]:
        """Generate the problems."""
        numbers = range(self.start, self.start + self.size)
        return [make_problem(self.split, number, self.seed, solution=self.solutions) for number in numbers]

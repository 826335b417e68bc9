"""A curriculum over prefixes: prompts hold the first lines of the annotated solution, fewer and fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from reft_pl.data.codec import Codec
from reft_pl.rollout.seeds import counter_seed, uniforms_at
from reft_pl.types import Problem


def remaining_share(step: int, total: float, share: float) -> float:
    """Return the share of a solution's lines that may be given in one iteration: 1 at first, 0 after ``share`` of the run.

    Args:
        step: Number of iterations before this one.
        total: Number of iterations of the run; positive.
        share: In [0, 1]; 0 gives no lines.
    """
    return max(0.0, 1.0 - step / (share * total)) if share else 0.0


class PrefixCurriculum:
    """Draws how many lines of its solution a question's prompt holds.

    In each iteration the number is uniform between 0 and the given share of the lines, so that full problems occur from the
    start. All samples of a question hold the same lines. The draw depends on run seed, step and problem alone.

    Source: R3, arXiv 2402.05808, section 3, with its stages mixed.

    Args:
        codec: The prompt format and the longest prompt.
        seed: Run seed.
    """

    def __init__(self, codec: Codec, seed: int) -> None:
        self._codec = codec
        self._seed = seed

    def apply(self, problems: Sequence[Problem], step: int, remaining: float) -> list[Problem]:
        """Return the problems with their given lines; none for problems without an annotated solution.

        Args:
            problems: Problems of this rank.
            step: Number of training batches before this one.
            remaining: Share of the lines that may be given (``remaining_share``).
        """
        if not remaining:
            return list(problems)
        seeds = [counter_seed(self._seed, "given lines", step, problem.id, 0) for problem in problems]
        draws = uniforms_at(seeds, [0] * len(problems))
        most = [ceil(remaining * self._codec.format.lines_to_give(problem)) for problem in problems]
        wanted = [int(draw * (lines + 1)) for draw, lines in zip(draws, most, strict=True)]
        return [self._fitting(problem, lines) for problem, lines in zip(problems, wanted, strict=True)]

    def _fitting(self, problem: Problem, lines: int) -> Problem:
        """Give fewer lines if the prompt would be too long."""
        for n in range(lines, 0, -1):
            given = replace(problem, given_lines=n)
            if len(self._codec.prompts([given])[0].ids) <= self._codec.max_prompt_tokens:
                return given
        return problem

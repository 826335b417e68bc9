"""Answer questions with a policy, by a vote of its samples if there are several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum

from reft_pl.data.codec import Codec
from reft_pl.errors import UserError
from reft_pl.formats.answers import is_answer_to, votes
from reft_pl.models.policy import Policy
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.collector import Collector
from reft_pl.rollout.phases import PhaseTimer
from reft_pl.rollout.seeds import counter_seed
from reft_pl.sandbox.base import Sandbox
from reft_pl.types import Answer, Problem, Sample, SamplingParams


@dataclass(frozen=True, slots=True)
class Solution:
    """The solution to one question: at least one sample, in sampling order, and a reranker's score of each if there is one."""

    samples: tuple[Sample, ...]
    scores: tuple[float, ...] | None = None

    @property
    def answers(self) -> list[Answer | None]:
        """[n] executed answers, None where a sample has no valid one."""
        values = [sample.result.value for sample in self.samples]
        return [value if is_answer_to(value, None) else None for value in values]

    @property
    def votes(self) -> list[list[int]]:
        """Indices of the samples of each answer, the chosen answer first; see ``formats.answers.votes``.

        With scores the vote is weighted: the answer with the largest sum of scores comes first.
        """
        groups = votes(self.answers)
        return groups if self.scores is None else sorted(groups, key=lambda group: -self.score(group))

    def score(self, group: Sequence[int]) -> float:
        """Return the sum of the scores of some samples."""
        return fsum(self.scores[index] for index in group) if self.scores is not None else float(len(group))

    @property
    def chosen(self) -> Sample:
        """The sample that represents the chosen answer, or scores best for it; the first sample if none has an answer."""
        groups = self.votes
        if not groups:
            return self.samples[0]
        scores = self.scores
        return self.samples[groups[0][0] if scores is None else max(groups[0], key=lambda index: scores[index])]


Scorer = Callable[[Problem, Sequence[str]], Sequence[float]]
"""Scores solutions of a problem by the probability that they are correct."""


class QuestionSolver:
    """A policy that answers questions without known answers, one at a time.

    Samples depend on the seed, the question and the sample index, not on earlier questions.

    Args:
        policy: The policy, on its device.
        codec: The policy's prompt format and limits.
        sampler: Sampler of completions.
        sandbox: Sandbox that runs their programs.
        params: Sampling parameters.
        n: Samples per question.
        seed: Seed of all samples.
        reranker: Scores the samples; None leaves the choice to a plain vote.
    """

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        sampler: Sampler,
        sandbox: Sandbox,
        params: SamplingParams,
        n: int,
        seed: int,
        reranker: Scorer | None = None,
    ) -> None:
        self.codec = codec
        self._policy = policy
        self._collector = Collector(codec, sampler, sandbox, PhaseTimer())
        self._params = params
        self._n = n
        self._seed = seed
        self._reranker = reranker

    def solve(self, question: str) -> Solution:
        """Sample ``n`` solutions, execute them, and score them if there is a reranker.

        Raises:
            UserError: The prompt exceeds the model's limit.
        """
        problem = Problem("question", question, None)
        length, limit = len(self.codec.prompts([problem])[0].ids), self.codec.max_prompt_tokens
        if length > limit:
            raise UserError(f"the question makes a prompt of {length} tokens, and this model takes {limit}: shorten it")
        samples = tuple(self._collector.sample(self._policy, [problem], self._params, self._seed_of, self._n))
        texts = [sample.text for sample in samples]
        return Solution(samples, None if self._reranker is None else tuple(self._reranker(problem, texts)))

    def close(self) -> None:
        """Stop the sandbox's processes."""
        self._collector.sandbox.close()

    def _seed_of(self, problem: Problem, index: int) -> int:
        return counter_seed(self._seed, "solve", 0, problem.question, index)

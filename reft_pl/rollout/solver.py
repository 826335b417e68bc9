"""Asking a model single questions: what it writes, what that comes to, and what its samples vote for."""

from __future__ import annotations

from dataclasses import dataclass

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
    """What was written for one question: at least one sample, in sampling order."""

    samples: tuple[Sample, ...]

    @property
    def answers(self) -> list[Answer | None]:
        """[n] executed answers, None where a sample has no valid one."""
        values = [sample.result.value for sample in self.samples]
        return [value if is_answer_to(value, None) else None for value in values]

    @property
    def votes(self) -> list[list[int]]:
        """The samples of each answer, the voted answer first; see ``formats.answers.votes``."""
        return votes(self.answers)

    @property
    def chosen(self) -> Sample:
        """The representative of the voted answer; the first sample if none has an answer."""
        groups = self.votes
        return self.samples[groups[0][0] if groups else 0]


class Solver:
    """A policy that is asked one question after another, whose answers nobody knows.

    What is sampled for a question depends on the seed, the question and the number of the sample, not on what was asked before.

    Args:
        policy: Where it shall run.
        codec: The policy's prompt form and limits.
        sampler: Writes completions.
        sandbox: Runs the programs in them.
        params: How they are drawn.
        n: Samples a question.
        seed: Of all draws.
    """

    def __init__(
        self, policy: Policy, codec: Codec, sampler: Sampler, sandbox: Sandbox, params: SamplingParams, n: int, seed: int
    ) -> None:
        self.codec = codec
        self._policy = policy
        self._collector = Collector(codec, sampler, sandbox, PhaseTimer())
        self._params = params
        self._n = n
        self._seed = seed

    def solve(self, question: str) -> Solution:
        """Write ``n`` solutions and execute them.

        Raises:
            UserError: the question is longer than the model's prompts may be.
        """
        problem = Problem("question", question, None)
        length, limit = len(self.codec.prompts([problem])[0].ids), self.codec.max_prompt_tokens
        if length > limit:
            raise UserError(f"the question makes a prompt of {length} tokens, and this model takes {limit}: shorten it")
        return Solution(tuple(self._collector.sample(self._policy, [problem], self._params, self._seed_of, self._n)))

    def close(self) -> None:
        """Stop the sandbox's processes."""
        self._collector.sandbox.close()

    def _seed_of(self, problem: Problem, index: int) -> int:
        return counter_seed(self._seed, "solve", 0, problem.question, index)

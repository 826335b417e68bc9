"""The reward of the ReFT paper: is the answer right, and if not, is it at least an answer?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from reft_pl.errors import UserError
from reft_pl.formats.answers import TOLERANCE, answers_equal, is_answer_to
from reft_pl.reward.base import RewardFunction
from reft_pl.types import Sample, StopReason


class AnswerReward(RewardFunction):
    """1 for a right answer, ``partial`` for a valid answer that is wrong, 0 for none (ReFT paper, section 3.2).

    Valid is an answer of the gold answer's kind: a finite number, or the letter of a choice. An error, a timeout, NaN,
    infinity, and a program that returns a number where a choice is asked are all none. (The paper's scripts give 0.1 to NaN and
    to a multiple-choice program that failed, because ``float("nan")`` is a float and ``"none"`` a string; we do not.)

    A reward of your own is a class in any importable file, or in a file of the folder you run in, named by class path.
    This one prefers short solutions among the right ones::

        # my_reward.py
        from reft_pl.reward.answer import AnswerReward


        class BriefAnswerReward(AnswerReward):
            def __init__(self, per_token: float = 0.001, partial: float = 0.1):
                super().__init__(partial=partial)
                self.per_token = per_token

            def score(self, samples):
                base = super().score(samples)
                return [r - self.per_token * len(s.completion.token_ids) if r == 1 else r for r, s in zip(base, samples)]

    and in the config ``--model.reward my_reward.BriefAnswerReward --model.reward.per_token 0.002``. A reward that does not
    build on this one subclasses ``RewardFunction`` and returns one finite number a sample.

    Args:
        partial: Reward of a valid answer that is wrong; 0 to 1.
        tolerance: Largest absolute difference between a number and the gold answer that earns a reward of 1. It changes what
            training pays. Verdicts and votes, and so every reported figure, keep 0.01 (``formats.answers.TOLERANCE``).
        truncated: What a completion gets that the length limit cut off: what its answer is worth ("scored"; a program may be
            whole before the cut), nothing ("zero"), or ``partial``. To leave such completions out of the update altogether,
            see PPOModule's ``mask_truncated``.
    """

    def __init__(
        self,
        partial: float = 0.1,
        tolerance: float = TOLERANCE,
        truncated: Literal["scored", "zero", "partial"] = "scored",
    ):
        if not 0 <= partial <= 1:
            raise UserError(f"AnswerReward: partial is {partial}, but it stands between 0 (no answer) and 1 (the right one)")
        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise UserError(f"AnswerReward: tolerance is {tolerance}, but it must be a finite number of at least 0")
        self.partial = partial
        self.tolerance = tolerance
        self.truncated = truncated

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Return 1, ``partial`` or 0 for each sample, in order."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float:
        if self.truncated != "scored" and sample.completion.stop is StopReason.LENGTH:
            return self.partial if self.truncated == "partial" else 0.0
        value, gold = sample.result.value, sample.problem.answer
        if answers_equal(value, gold, self.tolerance):
            return 1.0
        return self.partial if is_answer_to(value, gold) else 0.0

"""The ReFT paper's reward: 1 for a correct answer, a partial reward for a valid one, else 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from reft_pl.errors import UserError
from reft_pl.formats.answers import TOLERANCE, answers_equal, is_answer_to
from reft_pl.reward.base import RewardFunction
from reft_pl.types import Sample, StopReason


class AnswerReward(RewardFunction):
    """Reward 1 for a correct answer, ``partial`` for a valid but wrong answer, 0 for no answer.

    An answer is valid if it is of the reference answer's kind: a finite number, or a choice letter. An error, a timeout, NaN,
    infinity, and a number in reply to a multiple-choice question count as no answer. (The paper's scripts give 0.1 to NaN and
    to a failed multiple-choice program, because ``float("nan")`` is a float and ``"none"`` a string; this class does not.)

    To write your own reward, put a class in an importable file, or in a file in the working directory, and name its class path.
    This one prefers short correct solutions::

        # my_reward.py
        from reft_pl.reward.answer import AnswerReward


        class BriefAnswerReward(AnswerReward):
            def __init__(self, per_token: float = 0.001, partial: float = 0.1):
                super().__init__(partial=partial)
                self.per_token = per_token

            def score(self, samples):
                base = super().score(samples)
                return [r - self.per_token * len(s.completion.token_ids) if r == 1 else r for r, s in zip(base, samples)]

    Select it with ``--model.reward my_reward.BriefAnswerReward --model.reward.per_token 0.002``. A reward that does not build
    on this one is a function, or subclasses ``RewardFunction``.

    Args:
        partial: Reward of a valid but wrong answer, from 0 to 1.
        tolerance: Largest absolute difference from the reference answer at which a number earns a reward of 1. It affects
            training only: evaluation and voting always use 0.01 (``formats.answers.TOLERANCE``).
        truncated: Reward of a completion that reached the length limit: "scored" rewards its answer as usual (a program may be
            complete before the cut), "zero" gives 0, "partial" gives ``partial``. To exclude such completions from the update,
            see ``mask_truncated`` of PPOModule.

    Source:
        ReFT paper, section 3.2.
    """

    def __init__(
        self,
        partial: float = 0.1,
        tolerance: float = TOLERANCE,
        truncated: Literal["scored", "zero", "partial"] = "scored",
    ):
        if not 0 <= partial <= 1:
            raise UserError(f"AnswerReward: partial is {partial}, but it must be from 0 (no answer) to 1 (correct answer)")
        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise UserError(f"AnswerReward: tolerance is {tolerance}, but it must be finite and at least 0")
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

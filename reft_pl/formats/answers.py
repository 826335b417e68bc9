"""When two answers are the same answer: the one definition that rewards, evaluation and data checks share."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence

from reft_pl.choices import CHOICES
from reft_pl.types import Answer, Sample

TOLERANCE = 1e-2
"""Largest ``|answer - gold|`` that counts as right; the value of the scripts released with the ReFT paper."""


def is_answer_to(value: Answer | None, gold: Answer | None) -> bool:
    """Whether ``value`` is an answer of the kind that ``gold`` is: a finite number, or the letter of a choice.

    Args:
        value: What a program returned or a text said; None where there was nothing.
        gold: The dataset's answer; None, where nobody knows it, takes either kind.
    """
    if isinstance(value, str):
        return not isinstance(gold, (int, float)) and len(value) == 1 and value in CHOICES
    if isinstance(gold, str):
        return False
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def answers_equal(value: Answer | None, gold: Answer | None, tolerance: float = TOLERANCE) -> bool:
    """Whether ``value`` is right: ``|value - gold| <= tolerance`` for numbers, equal letters for a choice.

    Args:
        value: What a program returned or a text said; None, NaN and infinity are never right.
        gold: The dataset's answer; where it is None, nothing is right.
        tolerance: Largest absolute difference of two numbers that are one answer.
    """
    if gold is None or not is_answer_to(value, gold):
        return False
    if isinstance(gold, str) or isinstance(value, str) or value is None:
        return value == gold
    return abs(value - gold) <= tolerance


def is_correct(sample: Sample, tolerance: float = TOLERANCE) -> bool:
    """Whether the sample's executed or parsed answer is its problem's answer."""
    return answers_equal(sample.result.value, sample.problem.answer, tolerance)


def answer_key(answer: Answer) -> Hashable:
    """What two answers share that are one vote: a choice's letter, or a number rounded to 6 significant digits."""
    return answer if isinstance(answer, str) else float(f"{answer:.6g}") + 0.0  # adding 0 turns -0 into 0


def votes(answers: Sequence[Answer | None]) -> list[list[int]]:
    """The samples of each answer, by index in sampling order: the most common answer first.

    Among answers that are equally common the one that was sampled first stands first. A sample without an answer has no vote.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            groups.setdefault(answer_key(answer), []).append(index)
    return sorted(groups.values(), key=len, reverse=True)  # stable: in ties the order of first appearance stays


def most_voted(answers: Sequence[Answer | None]) -> int | None:
    """Index of the first sample that has the most common answer (see ``votes``), or None where no sample has one."""
    groups = votes(answers)
    return groups[0][0] if groups else None

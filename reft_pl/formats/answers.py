"""Answer equality and voting, shared by rewards, evaluation and data checks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from reft_pl.choices import CHOICES
from reft_pl.types import Answer, Sample

TOLERANCE = 1e-2
"""Largest difference between two numbers that count as the same answer, in evaluation and voting; as in the paper's scripts."""


def is_answer_to(value: Answer | None, gold: Answer | None) -> bool:
    """Whether ``value`` is an answer of the same kind as ``gold``: a finite number, or a choice letter.

    Args:
        value: The answer that a program returned or a text stated; None if there is no answer.
        gold: The reference answer. If it is unknown (None), either kind is valid.
    """
    if isinstance(value, str):
        return not isinstance(gold, (int, float)) and len(value) == 1 and value in CHOICES
    if isinstance(gold, str):
        return False
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def answers_equal(value: Answer | None, gold: Answer | None, tolerance: float = TOLERANCE) -> bool:
    """Whether ``value`` is correct: ``|value - gold| <= tolerance`` for numbers, equal letters for a choice.

    Args:
        value: The answer that a program returned or a text stated; None, NaN and infinity are never correct.
        gold: The reference answer; if it is None, no value is correct.
        tolerance: Largest absolute difference between two numbers that count as the same answer.
    """
    if gold is None or not is_answer_to(value, gold):
        return False
    if isinstance(gold, str) or isinstance(value, str) or value is None:
        return value == gold
    return abs(value - gold) <= tolerance


def is_correct(sample: Sample, tolerance: float = TOLERANCE) -> bool:
    """Whether the sample's executed or parsed answer matches its problem's reference answer."""
    return answers_equal(sample.result.value, sample.problem.answer, tolerance)


def votes(answers: Sequence[Answer | None]) -> list[list[int]]:
    """Group the samples of one question by answer. The largest group comes first, and in each group its representative.

    Letters are the same answer if they are equal, numbers if they differ by at most ``TOLERANCE``: voting uses the equality
    that decides correctness. It is not transitive (2.992, 3, 3.008), so each group has a representative. The number with the
    most samples within its tolerance represents them all; this repeats until every sample is in a group. Ties go to the number
    with more samples equal to it, then to an integer, then to the smaller one.

    - Groups depend on the multiset of answers, not on their order. Two integers never share a group.
    - If a sample equals the reference answer, the vote of its group is correct.
    - Every member is the same answer as its representative, and a vote is correct if its representative is. So if the
      representative equals the reference answer, all members are correct. Otherwise, if a member's correctness differs from
      its representative's, one of the two lies within ``2 * TOLERANCE`` of the reference answer.
    - Two correct answers share a group if one of them represents it. Otherwise they may not: 2.992 and 3.008 without a 3.

    Args:
        answers: [n] answers in sampling order; None, NaN and infinity do not vote.

    Returns:
        The indices of each group: the first sample with the representative's value, then the others in sampling order. Groups
        of equal size are ordered by their first sample.
    """
    places: dict[Answer, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None and is_answer_to(answer, None):
            places.setdefault(answer, []).append(index)  # -0.0 and 0.0 are equal
    numbers = sorted(answer for answer in places if not isinstance(answer, str))
    groups = [indices for answer, indices in places.items() if isinstance(answer, str)]
    for run in _runs(numbers):
        for representative, members in _groups(run, {number: len(places[number]) for number in run}):
            first, *others = places[representative]
            others += [index for number in members if number != representative for index in places[number]]
            groups.append([first, *sorted(others)])
    return sorted(groups, key=lambda group: (-len(group), min(group)))


def most_voted(answers: Sequence[Answer | None]) -> int | None:
    """Return the index of the most common answer's representative (see ``votes``), or None if no sample has an answer."""
    groups = votes(answers)
    return groups[0][0] if groups else None


def _runs(numbers: Sequence[float]) -> Iterator[list[float]]:
    """Split sorted numbers between neighbours that are not the same answer; no group spans such a gap."""
    run: list[float] = []
    for number in numbers:
        if run and not answers_equal(number, run[-1]):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _groups(run: list[float], counts: Mapping[float, int]) -> Iterator[tuple[float, list[float]]]:
    """Yield each representative of a sorted run with its members, largest group first."""
    while run:
        best: tuple[int, int, bool, float] | None = None
        chosen, members = run[0], run
        low = high = covered = 0  # run[low:high] is the same answer as the candidate
        for candidate in run:
            while high < len(run) and (run[high] <= candidate or answers_equal(run[high], candidate)):
                covered += counts[run[high]]
                high += 1
            while not answers_equal(run[low], candidate):
                covered -= counts[run[low]]
                low += 1
            rank = (covered, counts[candidate], float(candidate).is_integer(), -candidate)
            if best is None or rank > best:
                best, chosen, members = rank, candidate, run[low:high]
        yield chosen, members
        taken = set(members)
        run = [number for number in run if number not in taken]

"""The numbers that a solution may use: those in the question, in digits or words, and common knowledge."""

from __future__ import annotations

import re
from collections.abc import Collection
from fractions import Fraction
from itertools import pairwise

from reft_pl.data.programs.arithmetic import NUMBER, read_number

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_TIMES = {
    "once": 1,
    "twice": 2,
    "double": 2,
    "doubled": 2,
    "both": 2,
    "couple": 2,
    "pair": 2,
    "thrice": 3,
    "triple": 3,
    "tripled": 3,
}
_MANY = {"dozen": 12, "dozens": 12, "hundred": 100, "thousand": 1000}
_WORDS = {word: value for value, word in enumerate(_ONES.split())} | _PARTS | _TIMES | _MANY
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_WORDS |= {f"{part}s": value for part, value in _PARTS.items()}


def given_numbers(question: str) -> set[Fraction]:
    """Return all numbers of the question; a fraction in words ("a third") counts as its denominator."""
    words = re.findall(r"[a-z]+", question.lower())
    found = {Fraction(_WORDS[word]) for word in words if word in _WORDS}
    for tens, ones in pairwise(words):
        if tens in _TENS.split() and 0 < _WORDS.get(ones, 0) < 10:
            found.add(Fraction(_WORDS[tens] + _WORDS[ones]))
    return found | {read_number(number) for number in re.findall(NUMBER, question)}


_COMMON = frozenset(
    {
        16,
        24,
        25,
        28,
        29,
        30,
        31,
        36,
        52,
        60,
        90,
        100,
        128,
        144,
        180,
        360,
        365,
        366,
        1000,
        1440,
        1760,
        2000,
        3600,
        5280,
        1_000_000,
    }
)
"""Common knowledge besides 0 to 12: ounces, hours, cents, days, inches, weeks, minutes, degrees, feet, pounds."""
_CONVERSIONS = (100, 60, 1000, 12, 1_000_000)
"""Unit conversions: dollars to cents, hours to minutes, thousands, dozens and millions to ones."""


def comes_from(number: Fraction, given: Collection[Fraction]) -> bool:
    """Whether a solution may use the number without computing it.

    It may if the number is in the question (possibly in other units), is 100 percent plus or minus such a number, or is common
    knowledge. Any fraction is allowed, because it is a share or rate, which people write in many ways.
    """
    if number.denominator > 1 or abs(number) <= 12 or abs(number) in _COMMON or number in given:
        return True
    if number - 100 in given or 100 - number in given:
        return True
    return any(number / factor in given for factor in _CONVERSIONS)

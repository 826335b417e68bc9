"""Right answers that may have been reached the wrong way: what makes the reward pay for no reasoning.

Each function looks at text alone, which may be a program that nobody should compile; each can be wrong about a single sample (a
sum may happen to equal a number of the question), and is meant for shares that are watched over time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reft_pl.formats.answers import TOLERANCE
from reft_pl.formats.options import option_values, read_options, rounding

_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:[,_]\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<![\w.])-?\.\d+")
_QUOTIENT = re.compile(rf"(?:{_NUMBER.pattern})(?:\s*/\s*(?P<bottom>\d+(?:\.\d+)?))?")
_DOCSTRING = re.compile(r'""".*?"""|\'\'\'.*?\'\'\'', re.DOTALL)
_CONCLUSION = re.compile(r"therefore, the answer is", re.IGNORECASE)


def stands_in(answer: float, text: str) -> bool:
    """Whether a number of the text is the answer."""
    return any(abs(number - answer) <= TOLERANCE for number in _numbers(text))


def is_constant_of(answer: float, program: str) -> bool:
    """Whether the answer stands as a number in a program, its docstring apart."""
    return stands_in(answer, _DOCSTRING.sub("", program, count=1))


def letter_from_another_value(letter: str, question: str, reasoning: str) -> bool | None:
    """Whether the last number of a solution in words is another than the one of the option that was chosen.

    It is what the paper saw on multiple choice (section 5.3): a wrong calculation, then the right letter all the same.

    Args:
        letter: The choice.
        question: With its options on the last line, ``a ) 38 , b ) 27.675 , ...``.
        reasoning: Up to a conclusion ``Therefore, the answer is``, which is not looked at.

    Returns:
        None where the option or the reasoning holds no number.
    """
    options = read_options(question.rpartition("\n")[2])
    value, last = option_values(options).get(letter), _last_number(_CONCLUSION.split(reasoning, maxsplit=1)[0])
    if value is None or last is None:
        return None
    return abs(last - value) > max(rounding(options[letter]), 0.005 * abs(value))


def _numbers(text: str) -> Iterator[float]:
    for match in _NUMBER.finditer(text):
        yield float(match[0].replace(",", "").replace("_", ""))


def _last_number(text: str) -> float | None:
    """The number that no other follows, or the quotient (``3 / 6``) that does."""
    last = None
    for match in _QUOTIENT.finditer(text.replace("\u2212", "-")):
        last = match
    if last is None:
        return None
    top = float(re.split(r"\s*/", last[0], maxsplit=1)[0].replace(",", "").replace("_", ""))
    bottom = float(last["bottom"] or 1)
    return top / bottom if bottom else None

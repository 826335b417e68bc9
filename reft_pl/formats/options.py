"""Parse the options of a multiple-choice question in MathQA's notation."""

from __future__ import annotations

import re
from collections.abc import Mapping

from reft_pl.choices import CHOICES
from reft_pl.formats.parsing import parse_number

_LETTER = re.compile(rf"([{CHOICES}])\s*\)")
_EDGES = " \t\r\n,'\"[]"


def read_options(options: str) -> dict[str, str]:
    """Map letters to options, from ``a ) 38 , b ) 27.675 , ...`` or the printed list of such texts that some rows contain."""
    letters = list(_LETTER.finditer(options))
    ends = [match.start() for match in letters[1:]] + [len(options)]
    return {match[1]: options[match.end() : end].strip(_EDGES) for match, end in zip(letters, ends, strict=False)}


def option_values(options: Mapping[str, str]) -> dict[str, float]:
    """Map letters to numbers, for the options that are numbers."""
    values = {letter: parse_number(text.replace("rs .", "").replace("rs.", "")) for letter, text in options.items()}
    return {letter: value for letter, value in values.items() if value is not None}


def rounding(text: str) -> float:
    """Return how far a computed value may differ from an option as written: half a unit of its last digit, at least 1e-2."""
    digits = re.search(r"\.(\d+)", text)
    return max(1e-2, 0.5 * 10.0 ** -len(digits[1]) if digits else 1e-2)

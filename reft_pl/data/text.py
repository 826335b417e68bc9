"""Read the text fields of dataset rows: numbers, annotations, split questions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_TYPOGRAPHY = {
    0x2212: "-",
    0x2019: "'",
    **{0xFF00 + code: chr(0x20 + code) for code in (0x0B, 0x0C, 0x0D, 0x0E, *range(0x10, 0x1A))},
}
_GROUPED = r"[1-9]\d{0,2}(?:(?:,\d{3})+|(?:'\d{3})+|(?:_\d{3})+)"
_NUMBER = re.compile(rf"[+-]?(?:(?:{_GROUPED}|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_DIGITS_AND_SEPARATORS = re.compile(r"[\s$%+-]*(?:[\s.,'_\u066b\u066c\u00b7\u3001\ufe50\u201a;]*\d)+[\s.,'_%$]*")


def without_annotations(solution: str) -> str:
    """Remove GSM8K's calculator annotations (``<<48/2=24>>``) from a solution."""
    return _ANNOTATION.sub("", solution)


def joined(parts: Sequence[str]) -> str:
    """Join the parts of a text, with a comma after a part that ends mid-sentence ("If there is a discount of 25 dollars")."""
    text = ""
    for part in filter(None, (part.strip() for part in parts)):
        text += ("" if not text else " " if text[-1] in ".?!,:;" else ", ") + part
    return text


def stated_number(text: str) -> float | None:
    """Read a reference answer such as ``1,024``, ``$5`` or ``25%``.

    A comma, apostrophe or underscore separates thousands: one to three digits, the first not 0, then groups of exactly three.
    Any other use of a comma (``1,5``, ``0,125``, ``1.234,56``) is ambiguous and refused, as by
    ``formats.parsing.parse_number`` for responses.

    Returns:
        The number, or None if the text is not a plain, finite number.
    """
    plain = text.translate(_TYPOGRAPHY).strip(" $%\n\t\r\xa0")
    match = _NUMBER.fullmatch(plain)
    if match is None:
        return None
    number = float(re.sub("[,'_]", "", plain))
    return number if math.isfinite(number) else None


def is_ambiguous_number(text: str) -> bool:
    """Whether a text refused by ``stated_number`` consists only of digits and separators."""
    return _DIGITS_AND_SEPARATORS.fullmatch(text.strip().translate(_TYPOGRAPHY)) is not None

"""Small readings of what stands in a field."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def without_annotations(solution: str) -> str:
    """A solution without GSM8K's calculator annotations (``<<48/2=24>>``)."""
    return _ANNOTATION.sub("", solution)


def joined(parts: Sequence[str]) -> str:
    """Parts of one text in a row; a comma where one ends within a sentence ("If there is a discount of 25 dollars")."""
    text = ""
    for part in filter(None, (part.strip() for part in parts)):
        text += ("" if not text else " " if text[-1] in ".?!,:;" else ", ") + part
    return text


def stated_number(text: str) -> float | None:
    """The number that a field states, as in ``1,024`` or ``$5``; None where it is none, or not finite."""
    try:
        number = float(text.replace(",", "").strip(" $%\n\t"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None

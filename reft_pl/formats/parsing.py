"""Numbers and choice letters in text: how an answer is written into a target and read from a response."""

from __future__ import annotations

import math
import re

from reft_pl.choices import CHOICES
from reft_pl.types import Answer, ExecutionResult, Status

BACKEND = "text"

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
# A number does not start inside a word or another number ("x2", "1.2.3"); the tail of a list of digits such as "1,5" is refused
# by the guard at the end, since nobody can tell whether its comma is a decimal point.
_NUMBER = re.compile(
    rf"""
    (?<![\w.,/^\u221a])
    (?P<sign>[-+]\s*)?
    (?:
        (?:(?P<whole>{_DIGITS})\s+)?(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})   # 3/4, 1 1/2
      | (?P<number>{_DECIMAL})
        (?:[eE](?P<e>[-+]?\d+) | \s*(?:\*|x|\u00d7)\s*10\s*(?:\^|\*\*)\s*(?P<power>[-+]?\d+))?   # 1e5, 3 x 10^5
    )
    (?![\d/^]|,\d|\.\d|[eE]\d)
    """,
    re.VERBOSE,
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{\s*([-+]?[\d.,]+)\s*\}\s*\{\s*([-+]?[\d.,]+)\s*\}")
_LATEX_WRAPPER = re.compile(r"\\(?:text\w*|math(?:rm|bf|it|sf|tt)|boxed|mbox|emph|underline)\s*\{([^{}]*)\}")
_LATEX_NOTHING = re.compile(r"\\!|(?<=\d)\\[,;:]\s*(?=\d{3}(?!\d))")  # 10,\!000 and 10\,000 are ten thousand
_LATEX_SPACE = re.compile(
    r"\\[,;: ]|\\(?:q?quad|left|right|displaystyle|textstyle|therefore)(?![a-zA-Z])|~|\^?\{?\\circ(?![a-zA-Z])\}?"
)
_LATEX_EQUALS = re.compile(r"\\(?:approx|simeq|implies|Rightarrow)(?![a-zA-Z])")
_LATEX_COMMAND = re.compile(r"\\[a-zA-Z]")
_DIGIT = re.compile(r"(?<!\w)\d")  # not that of H2O
# What makes another number of the digits before it, so that these alone would be an answer that nobody gave.
_GOES_ON = re.compile(
    r"""
    k\b                                                                                   # 5k
    | [\s-]*(?:hundred|thousand|million|billion|trillion|lakh|crore)(?:s|ths?)?\b         # 1.5 million, 3 hundredths
    | [\s-]*(?:tenths?|dozens?|squared|cubed)\b
    | [\s-]*and\s+(?:an?|one|two|three)[\s-]+(?:half|third|quarter|fourth|fifth)s?\b     # 2 and a half
    | \s*[\u221a\u03c0]                                                                   # 2√3, 2π
    | [\u00b2\u00b3\u00b9\u2070-\u2079\u00bc-\u00be\u2150-\u215e]                         # 5², 3½
    | [\s\u00a0\u202f]\d{3}(?![\d/])                                                      # 1 000
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NOT_FINITE = re.compile(r"[-+]?\s*(?:nan|inf|infinity|\\infty|∞)\W*", re.IGNORECASE)
_CHOICE = re.compile(
    rf"[\s(\[*]*(?:(?:option|choice|answer)\s+)?[(\[*]*([{CHOICES}])[\s*]*(?:[)\].:,*].*)?", re.IGNORECASE | re.DOTALL
)


def answer_text(answer: Answer) -> str:
    """Write a gold answer as a person would: ``203.0`` is ``203``, ``0.5`` is ``0.5``, a choice is its letter."""
    if isinstance(answer, str):
        return answer
    return str(int(answer)) if answer.is_integer() and abs(answer) < 1e16 else repr(answer)


def parse_number(text: str) -> float | None:
    r"""Return the number that a short text states, or None when it states none.

    Understands signs, thousands separators, ``$`` and other units around the number, a per cent sign (``25%`` is 25), fractions
    (``3/4``, ``1 1/2``, ``\frac{3}{4}``), powers of ten and LaTeX wrapping. Of an equation the right-hand side counts, of
    several numbers the first. The result may be infinite when the text's number exceeds what a float holds.

    What it does not understand it does not guess at: a text with a LaTeX command of another kind (``2\sqrt{3}``), or whose
    digits go on in a word or sign that makes another number of them (``1.5 million``, ``2 and a half``, ``5²``), states none;
    nor does it pass over a number that it cannot read to one that stands behind it (``2^3 or 5``).
    """
    stated = _plain(text).rsplit("=", 1)[-1]
    match = _NUMBER.search(stated)
    if match is None or _LATEX_COMMAND.search(stated) or _GOES_ON.match(stated, match.end()):
        return None
    return None if _DIGIT.search(stated, 0, match.start()) else _value(match)


def last_number(text: str) -> float | None:
    """Return the number of a text that no other follows, or None where it holds none."""
    matches = list(_NUMBER.finditer(_plain(text)))
    return _value(matches[-1]) if matches else None


def parse_choice(text: str) -> str | None:
    """Return the lower-case letter that a short text chooses (``B``, ``(b)``, ``b ) 30``, ``option b.``), or None."""
    match = _CHOICE.fullmatch(_plain(text))
    return match[1].lower() if match else None


def read_answer(text: str | None, gold: Answer | None) -> ExecutionResult:
    """Read an answer of the gold answer's kind from the part of a response that states it.

    Args:
        text: what stands where the answer belongs; None when the response has no such place.
        gold: the problem's answer. Only its *kind* (number or letter) is looked at; where it is None, a text that chooses a
            letter gives that, any other the number that it states.
    """
    if text is None or not text.strip():
        return ExecutionResult(Status.NO_RESULT, backend=BACKEND, detail="the response states no answer")
    shown = text.strip()[:80]
    if not isinstance(gold, (int, float)):
        choice = parse_choice(text)
        if choice is not None:
            return ExecutionResult(Status.OK, choice, backend=BACKEND)
        if gold is not None:
            return ExecutionResult(Status.WRONG_TYPE, backend=BACKEND, detail=f"not a choice: {shown!r}")
    number = parse_number(text)
    if number is None:
        status = Status.NON_FINITE if _NOT_FINITE.fullmatch(text.strip(" $.")) else Status.NON_NUMERIC
        return ExecutionResult(status, backend=BACKEND, detail=f"not a number: {shown!r}")
    if not math.isfinite(number):
        return ExecutionResult(Status.TOO_LARGE, backend=BACKEND, detail=f"more than a float holds: {shown!r}")
    return ExecutionResult(Status.OK, number, backend=BACKEND)


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{...}`` whose braces balance, or None."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        begin = start + len("\\boxed{")
        depth = 1
        for index in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            if depth == 0:
                return text[begin:index]
        start = text.rfind("\\boxed{", 0, start)
    return None


def _plain(text: str) -> str:
    """Undo LaTeX and typography that do not change which number or letter a text states."""
    text = text.replace("\u2212", "-").replace("\u2013", "-").replace("{,}", ",").replace("\\times", "x").replace("\\cdot", "*")
    text = _LATEX_NOTHING.sub("", _FRACTION.sub(r" \1/\2 ", text))
    while (unwrapped := _LATEX_WRAPPER.sub(r" \1 ", text)) != text:
        text = unwrapped
    text = _LATEX_SPACE.sub(" ", _LATEX_EQUALS.sub("=", text))
    text = re.sub(r"\\(?![a-zA-Z])", "", text)  # \$, \%, \(
    # A currency sign may stand between the sign and the digits, and braces around an exponent.
    return re.sub(r"[$€£¥{}<>]", "", text).strip().rstrip(".")


def _value(match: re.Match[str]) -> float | None:
    """What ``_NUMBER`` found; None for a division by zero."""
    if match["bottom"] is not None:
        bottom = _float(match["bottom"])
        if bottom == 0:
            return None
        value = _float(match["top"]) / bottom + (_float(match["whole"]) if match["whole"] else 0.0)
    else:
        value = float(f"{match['number'].replace(',', '')}e{match['e'] or match['power'] or 0}")
    return -value if (match["sign"] or "").startswith("-") else value


def _float(digits: str) -> float:
    return float(digits.replace(",", ""))

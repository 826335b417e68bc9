r"""Numbers and choice letters in text: how an answer is written into a target and read from a response."""

from __future__ import annotations

import math
import re

from reft_pl.choices import CHOICES
from reft_pl.formats.statement import stated_value
from reft_pl.formats.tokens import Unreadable
from reft_pl.types import Answer, ExecutionResult, Status

BACKEND = "text"

_NOT_FINITE = re.compile(r"[-+]?\s*(?:nan|inf|infinity|\\infty|\u221e)\W*", re.IGNORECASE)
_MAX_CHOICE = 2000  # characters; nobody states a letter in more
_CHOICE_MARKUP = re.compile(
    r"\\(?:text\w*|math(?:rm|bf|it|sf|tt)|boxed|mbox|emph|underline|left|right)(?![a-z])|\\[,;: ()]|[$\\{}<>~]"
)
_CHOICE = re.compile(
    rf"(?:(?:option|choice|answer)\s+)?[(\[*]*([{CHOICES}])[\s*]*(?:[)\].:,*](.*))?", re.IGNORECASE | re.DOTALL
)
_ANOTHER_CHOICE = re.compile(
    rf"""
    (?:\b(?:or|and|not|but|nor)\s+|[,/&;+]\s*)(?:(?:option|choice|answer)\s+)?[(\[*]*[{CHOICES}](?![\w']|\s+\w)
    | [(\[]\s*[{CHOICES}]\s*[)\]]
    | (?<![\w'])[{CHOICES}]\s*\)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BRACES = re.compile(r"\\[{}]|\\boxed\s*\{|[{}]")


def answer_text(answer: Answer) -> str:
    """Write a gold answer as a person would: ``203.0`` is ``203``, ``0.5`` is ``0.5``, a choice is its letter."""
    if isinstance(answer, str):
        return answer
    return str(int(answer)) if answer.is_integer() and abs(answer) < 1e16 else repr(answer)


def parse_number(text: str) -> float | None:
    r"""Return the number that a short text states, or None where it states none.

    The whole text must be accounted for. It holds one value: a number, or arithmetic that is evaluated exactly (``2^3``,
    ``5!``, ``\frac12``, ``2\sqrt3``, ``2 1/2``). Around it may stand what does not change it: a currency sign, units, a name or
    calculation before an equals sign, a few words (``formats/words.py``), LaTeX wrapping. A per cent sign is a unit, as in gold
    answers: ``25%`` is 25. Of several numbers all must be equal (``0.5 or 1/2``), or the text states none (``12 or 13``).

    What can be read in two ways is refused: ``10-15`` (a range), ``3:4``, ``1,5``, ``0,125``, ``1 000``, ``1.5 million``,
    ``2x``. The result is infinite where the value exceeds a float.
    """
    try:
        return stated_value(text)
    except Unreadable:
        return None


def parse_choice(text: str) -> str | None:
    """Return the lower-case letter that a short text chooses (``B``, ``(b)``, ``b ) 30``, ``option b.``), or None.

    A text that names several letters (``b or c``) chooses none.
    """
    if len(text) > _MAX_CHOICE:
        return None
    plain = _CHOICE_MARKUP.sub(" ", text).strip().rstrip(".").lstrip(" \t\n([*")
    match = _CHOICE.fullmatch(plain)
    if match is None or (
        match[2] and _ANOTHER_CHOICE.search(f",{match[2]}" if plain[match.end(1) :].lstrip(" *")[:1] == "," else match[2])
    ):
        return None
    return match[1].lower()


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
    r"""Return what the last ``\boxed{...}`` holds whose braces balance and that is not empty, or None.

    Of nested boxes the outer one counts. An empty text comes back where all boxes are empty.
    """
    begins: list[int | None] = []  # of each open brace: where the content of its box begins
    last: str | None = None
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            begin = begins.pop() if begins else None
            if begin is not None and (last is None or text[begin : match.start()].strip()):
                last = text[begin : match.start()]
        elif match[0] == "{" or match[0].startswith("\\boxed"):
            begins.append(None if match[0] == "{" else match.end())
    return last

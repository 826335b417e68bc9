r"""Numbers and choice letters in text: write answers into targets, parse them from responses."""

from __future__ import annotations

import math
import re

from reft_pl.choices import CHOICES
from reft_pl.formats.statement import stated_value
from reft_pl.formats.tokens import Unreadable
from reft_pl.types import Answer, ExecutionResult, Status

BACKEND = "text"

_NOT_FINITE = re.compile(r"[-+]?\s*(?:nan|inf|infinity|\\infty|\u221e)\W*", re.IGNORECASE)
_MAX_CHOICE = 2000  # characters; no statement of a letter is longer
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
    """Write a reference answer as a person would: ``203.0`` as ``203``, ``0.5`` as ``0.5``, a choice as its letter."""
    if isinstance(answer, str):
        return answer
    return str(int(answer)) if answer.is_integer() and abs(answer) < 1e16 else repr(answer)


def parse_number(text: str) -> float | None:
    r"""Return the number that a short text states, or None if it states none.

    Every part of the text must be understood. The text has one value: a number, or arithmetic, which is evaluated exactly
    (``2^3``, ``5!``, ``\frac12``, ``2\sqrt3``, ``2 1/2``). A currency sign, units, a name or calculation before an equals sign,
    a few words (``formats/words.py``) and LaTeX wrappers may surround it without changing it. A percent sign is a unit, as in
    reference answers: ``25%`` is 25. If there are several numbers, all must be equal: ``0.5 or 1/2`` states a number,
    ``12 or 13`` does not.

    Ambiguous texts are refused: ``10-15`` (a range), ``3:4``, ``1,5``, ``0,125``, ``1 000``, ``1.5 million``, ``2x``. The
    result is infinite if the value exceeds the range of a float.
    """
    try:
        return stated_value(text)
    except Unreadable:
        return None


def parse_choice(text: str) -> str | None:
    """Return the choice letter that a short text states, in lower case (``B``, ``(b)``, ``b ) 30``, ``option b.``), or None.

    A text that names several letters (``b or c``) states none.
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
    """Parse an answer of the reference answer's kind from the part of a response that states it.

    Args:
        text: The text where the answer belongs; None if the response has no such place.
        gold: The reference answer. Only its *kind* (number or letter) matters. If it is None, a text that states a letter gives
            the letter, and any other text the number that it states.
    """
    if text is None or not text.strip():
        return ExecutionResult(Status.NO_RESULT, backend=BACKEND, detail="the response states no answer")
    shown = text.strip()[:80]
    if not isinstance(gold, (int, float)):
        choice = parse_choice(text)
        if choice is not None:
            return ExecutionResult(Status.OK, choice, backend=BACKEND)
        if gold is not None:
            return ExecutionResult(Status.WRONG_TYPE, backend=BACKEND, detail=f"not a choice letter: {shown!r}")
    number = parse_number(text)
    if number is None:
        status = Status.NON_FINITE if _NOT_FINITE.fullmatch(text.strip(" $.")) else Status.NON_NUMERIC
        return ExecutionResult(status, backend=BACKEND, detail=f"not a number: {shown!r}")
    if not math.isfinite(number):
        return ExecutionResult(Status.TOO_LARGE, backend=BACKEND, detail=f"beyond the range of a float: {shown!r}")
    return ExecutionResult(Status.OK, number, backend=BACKEND)


def last_boxed(text: str) -> str | None:
    r"""Return the contents of the last non-empty ``\boxed{...}`` with balanced braces, or None without a box.

    The outer one of nested boxes counts. If all boxes are empty, the result is an empty text.
    """
    begins: list[int | None] = []  # per open brace: where its box's contents begin, None if it is not a box
    last: str | None = None
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            begin = begins.pop() if begins else None
            if begin is not None and (last is None or text[begin : match.start()].strip()):
                last = text[begin : match.start()]
        elif match[0] == "{" or match[0].startswith("\\boxed"):
            begins.append(None if match[0] == "{" else match.end())
    return last

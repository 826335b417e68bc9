"""Extract the equations of a written solution, from calculator annotations and from plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from reft_pl.data.expression import Expression, Number, Operation, evaluate
from reft_pl.data.programs.arithmetic import NUMBER, NoArithmetic, read_arithmetic, read_number

_ANNOTATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_STATED = re.compile(rf"\s*(?P<minus>[-−]?)\s*(?P<currency>[$€£]?)\s*(?P<number>{NUMBER})(?P<percent>\s?%)?")  # noqa: RUF001
_IN_WORDS = {
    "*": re.compile(
        r"(?<=[\d)%])[xX](?=[\d$(.])|(?<=\s)[xX](?=\s*[\d$(.])|(?<=[\d)%])\s+of\s+(?=[\d$(])|\btimes\b|\bmultiplied by\b"
    ),
    "/": re.compile(r"\bdivided (?:by|into)\b"),
    "+": re.compile(r"\bplus\b"),
    "-": re.compile(r"\bminus\b"),
}
_EQUALS = re.compile(r"=|\b(?:equals|is equal to)\b")
_UNIT = re.compile(r"(?:/\s?)?[A-Za-z]+(?:['’-][A-Za-z]+)*|[$€£]|\.(?!\d)")  # noqa: RUF001
_BEGINS = re.compile(r"(?<![\w.,])[$€£]?\(*[$€£]?(?:\d|\.\d)")


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation in a line of a solution.

    ``expression`` is its left side, which has only numbers; ``stated`` is the value that the text gives. ``before`` is the
    text before the left side, ``after`` the text after the stated number. ``currency``: a currency sign precedes that number.
    """

    expression: Expression
    stated: Fraction
    before: str
    after: str
    currency: bool


def equations(line: str) -> Iterator[Equation]:
    """Yield the equations of one line, in order.

    Annotations are trusted. An equation in plain text may have units between its numbers (``3 canes/teacher * 4 teachers
    = 12``); it counts only if the readable part of its left side evaluates to the stated value.
    """
    text, annotations = _without_annotations(line)
    places = sorted({match.end() for match in _EQUALS.finditer(text)} | set(annotations))
    begin = 0  # earliest start of the left side: after the previous equals sign
    for place in places:
        stated = _STATED.match(text, place)
        if stated is not None:
            if any(place < other <= stated.start("number") for other in annotations):
                continue
            left = _EQUALS.sub("", text[begin:place])
            found = _annotated(*annotations[place], left) if place in annotations else None
            if found is None or isinstance(found.expression, Number):
                found = _plain(left, _value(stated), bool(stated["percent"])) or found
            if found is not None:
                currency = bool(stated["currency"]) or text[:place].rstrip().endswith("$")
                yield Equation(found.expression, found.stated, left[: found.start], text[stated.end() :], currency)
        begin = place


def _without_annotations(line: str) -> tuple[str, dict[int, tuple[str, str]]]:
    """Remove annotations from a line. Returns the visible text, and the annotations by their position in it."""
    text, end, annotations = "", 0, {}
    for match in _ANNOTATION.finditer(line):
        text += line[end : match.start()]
        annotations[len(text)] = (match[1], match[2])
        end = match.end()
    return text + line[end:], annotations


def _value(stated: re.Match[str]) -> Fraction:
    return read_number(stated["number"]) * (-1 if stated["minus"] else 1)


@dataclass(frozen=True, slots=True)
class _Found:
    """The two sides of an equation, and the start of the left side in the visible text."""

    expression: Expression
    stated: Fraction
    start: int


def _annotated(left: str, right: str, visible: str) -> _Found | None:
    """Read an equation from a calculator annotation; None if it is not arithmetic."""
    stated = _STATED.fullmatch(right.strip())
    if stated is None:
        return None
    try:
        expression = read_arithmetic(left)
    except NoArithmetic:
        return None
    starts = [match.start() for match in _BEGINS.finditer(visible)]
    count = len(re.findall(NUMBER, left))
    return _Found(expression, _value(stated), starts[-count] if count <= len(starts) else len(visible))


def _plain(left: str, stated: Fraction, percent: bool) -> _Found | None:
    """Find the longest suffix of the left side that is arithmetic and evaluates to the stated value."""
    for operator, words in _IN_WORDS.items():
        left = _in_place(words, operator, left)
    for match in _BEGINS.finditer(left):
        for expression in _readings(_UNIT.sub(" ", left[match.start() :]), percent):
            if isinstance(expression, Operation) and _comes_to(expression, stated):
                return _Found(expression, stated, match.start())
    return None


def _in_place(words: re.Pattern[str], sign: str, text: str) -> str:
    """Replace words by an operator sign, padded so that no position changes."""
    return words.sub(lambda match: sign.center(len(match[0])), text)


def _readings(text: str, percent: bool) -> Iterator[Expression]:
    """Yield the readings: percent as a unit of both sides, as hundredths, or as hundredths with a result in percent."""
    try:
        yield read_arithmetic(text, "unit")
        expression = read_arithmetic(text)
    except NoArithmetic:
        return
    yield expression
    if percent:
        yield Operation("*", expression, Number(100))


def _comes_to(expression: Expression, stated: Fraction) -> bool:
    """Whether the expression equals the stated value, or the text truncates its decimals ("66.666...")."""
    try:
        value = evaluate(expression, {})
    except ZeroDivisionError:
        return False
    places = len(str(float(stated)).partition(".")[2]) if stated.denominator > 1 else 0
    return value == stated or (places > 0 and abs(value - stated) < Fraction(1, 10**places))

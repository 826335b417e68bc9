r"""The one value that a short text states: a number or an expression, with its units and the equation around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reft_pl.formats.arithmetic import Arithmetic, TooLarge
from reft_pl.formats.tokens import Token, Unreadable, tokenize
from reft_pl.formats.words import (
    ATTACHED,
    CURRENCIES,
    LEADING,
    POWERS_OF,
    STATING,
    changes_name,
    changes_value,
    factor,
    number_word,
)

_EQUALS, _NEARLY = "=", "\u2248"
_AGREE = 1e-2
_REGIONS = frozenset({"US", "CA", "AU", "NZ", "HK"})
_FUNCTIONS = frozenset("fghPp")
_NAMES = frozenset(
    ("\\alpha", "\\beta", "\\gamma", "\\delta", "\\theta", "\\lambda", "\\mu", "\\phi", "\\omega", "\\angle", "\\triangle")
)
_DENIALS = frozenset(
    (
        "not",
        "no",
        "nor",
        "never",
        "neither",
        "none",
        "wrong",
        "incorrect",
        "false",
        "impossible",
        "except",
        "unless",
        "if",
        "or",
    )
)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")


@dataclass(frozen=True, slots=True)
class Reading:
    """A value with what is known of its unit; ``decimals`` of a number that is written with a decimal point, else 0."""

    value: float
    percent: bool = False
    unit: str | None = None
    decimals: int = 0


def stated_value(text: str) -> float:
    """Read the one value that the whole text states; infinite where it exceeds a float.

    Of an equation the last side counts. All sides, and every other number of the text, must agree with it: ``3 + 4 = 7``,
    ``0.5 or 1/2`` and ``60 minutes (1 hour)`` state a value, and ``12 or 13``, ``x=3, y=4`` and ``2x = 10`` state none.

    Raises:
        Unreadable: the text states no number or several ones, or part of it is unknown.
    """
    try:
        return _statement(tokenize(text), 0).value
    except TooLarge:
        return float("inf")


def _statement(tokens: Sequence[Token], depth: int) -> Reading:
    if depth > 3:
        raise Unreadable("remarks nested too deep")
    sides, nearly = _sides(tokens)
    if not sides[-1]:
        raise Unreadable("nothing after an equals sign")
    readings = [_side(side, depth, last=index == len(sides) - 1) for index, side in enumerate(sides) if side or index]
    values = [reading for reading in readings if reading is not None]
    if not values:
        raise Unreadable("no number")
    last = values[-1]
    for reading in values[:-1]:
        _check_agreement(reading, last, nearly)
    return last


def _sides(tokens: Sequence[Token]) -> tuple[list[list[Token]], bool]:
    """The sides of an equation, of ``label: value`` and of ``Janet makes $18``; whether the last relation is approximate."""
    sides: list[list[Token]] = [[]]
    depth, nearly = 0, False
    for index, token in enumerate(tokens):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if depth == 0 and token.text == ":":
            if len(sides) > 1 or _has_number(sides[-1]) or not sides[-1]:
                raise Unreadable("a ratio, a time or a list")
            sides.append([])
        elif depth == 0 and (token.text in (_EQUALS, _NEARLY) or (token.kind == "word" and token.text.lower() in STATING)):
            after = tokens[index + 1].text if index + 1 < len(tokens) else ""
            if token.text in (_EQUALS, _NEARLY) and after in (_EQUALS, "/"):
                raise Unreadable("an unknown relation")
            nearly = token.text == _NEARLY
            sides.append([])
        else:
            sides[-1].append(token)
    return sides, nearly


def _side(tokens: Sequence[Token], depth: int, *, last: bool) -> Reading | None:
    """The value of a side; None for a name (``x``, ``Total cost``), which says nothing of the value."""
    if _is_name(tokens):
        return None
    parts = _split_at_or(tokens)
    if len(parts) == 1 and not last:
        try:
            return _value(tokens, depth)
        except Unreadable:
            return _working(tokens)
    readings = [_value(part, depth) for part in parts]
    for reading in readings[1:]:
        _check_agreement(reading, readings[0], nearly=False)
    return readings[0]


def _value(tokens: Sequence[Token], depth: int) -> Reading:
    """Read ``about $18 per hour``: words that change nothing, an expression, its unit."""
    start = _skip_leading(tokens)
    word = number_word(tokens[start].text) if start + 1 < len(tokens) and tokens[start].kind == "word" else None
    if word is not None and tokens[start + 1].text in (",", "("):  # twelve (12)
        start += 1 + (tokens[start + 1].text == ",")
    if (
        tokens[start:]
        and tokens[start].text == "("
        and _closing(tokens, start) == len(tokens) - 1
        and _has_word(tokens[start:])
    ):
        return _value(tokens[start + 1 : -1], depth)  # (18 apples)
    arithmetic = Arithmetic(tokens, start)
    value = arithmetic.value()
    end = arithmetic.place
    tokens = arithmetic.tokens
    money = any(token.text in CURRENCIES for token in tokens[start:end])
    _, _, part = tokens[start].text.partition(".") if end == start + 1 else ("", "", "")
    reading = Reading(value, unit="$" if money else None, decimals=len(part) if part.isdigit() else 0)
    if word is not None:
        _check_agreement(Reading(float(word)), reading, nearly=False)
    return _Tail(tokens, end, reading, depth).read()


def _working(tokens: Sequence[Token]) -> Reading:
    """The value of a calculation with units, ``29 species * 7 pairs per species``, in which a per cent sign is a hundredth."""
    kept: list[Token] = []
    for token in tokens:
        if token.text == "%":
            kept += [Token("sign", "/"), Token("number", "100")]
        elif token.text == "of" and kept and kept[-1].text == "100":
            kept.append(Token("sign", "*"))
        elif token.kind != "word" or changes_value(token.text) or token.text == "pi":
            kept.append(token)
    arithmetic = Arithmetic(kept, strict=False)
    value = arithmetic.value()
    if arithmetic.place < len(arithmetic.tokens):
        raise Unreadable("an unknown side of an equation")
    return Reading(value)


class _Tail:
    """What follows the expression: units, remarks and punctuation, none of which may change the value."""

    def __init__(self, tokens: Sequence[Token], place: int, reading: Reading, depth: int) -> None:
        self._tokens = tokens
        self._place = place
        self._reading = reading
        self._depth = depth

    def read(self) -> Reading:
        """Check the rest and return the reading with its unit."""
        value, unit = self._reading.value, self._reading.unit
        percent = self._take("%")
        self._degrees()
        attached = not percent
        while (token := self._peek()) is not None:
            if token.kind == "word":
                self._word(token, attached)
                unit = unit or token.text
                percent = percent or (token.text.lower() in ("percent", "per") and self._previous_is_percent(token))
            elif token.text == "(":
                self._remark(Reading(value, percent, unit))
            else:
                self._sign(token)
            attached = False
        return Reading(value, percent, unit, self._reading.decimals)

    def _previous_is_percent(self, token: Token) -> bool:
        return token.text.lower() == "percent" or self._text() == "cent"

    def _degrees(self) -> None:
        ahead = next((n for n in (0, 1, 2) if self._text(n) == "\\degree"), None)
        if ahead is None or (ahead and self._text() != "^"):
            return
        self._place += ahead + 1
        if ahead == 2 and not self._take("}"):
            raise Unreadable("a bracket that is not closed")
        if self._text() in ("C", "F"):
            self._place += 1

    def _word(self, token: Token, attached: bool) -> None:
        lower, follows = token.text.lower(), self._peek(1)
        if attached and not token.spaced and token.text not in ATTACHED:
            raise Unreadable(f"{token.text!r} attached to a number")
        self._place += 1
        equal = number_word(token.text)
        if equal is not None and equal == self._reading.value:
            return
        if lower in ("a", "an"):
            known = follows is not None and follows.kind == "word" and len(follows.text) > 1
        elif lower in ("c", "f") and self._tokens[self._place - 2].text in ("degrees", "degree"):
            known = True
        elif lower == "times":
            known = follows is None or follows.text in (".", "a", "per", "each", "every")
        elif lower in ("more", "less", "fewer", "greater", "larger", "smaller"):
            known = follows is None or follows.text != "than"
        else:
            known = not changes_value(token.text)
        if not known:
            raise Unreadable(f"{token.text!r} after a number")

    def _remark(self, reading: Reading) -> None:
        """``(1 hour)``, ``(eighteen)``, ``(in total)``: whatever number it states must be the same."""
        depth, start = 0, self._place
        while (token := self._peek()) is not None:
            depth += (token.text == "(") - (token.text == ")")
            self._place += 1
            if depth == 0:
                break
        else:
            raise Unreadable("a bracket that is not closed")
        content = self._tokens[start + 1 : self._place - 1]
        if _has_number(content):
            _check_agreement(_statement(content, self._depth + 1), reading, nearly=False)
            return
        for token in content:
            equal = number_word(token.text) == reading.value
            if token.kind != "word" or (not equal and changes_value(token.text)):
                raise Unreadable("an unknown remark")

    def _sign(self, token: Token) -> None:
        before, follows = self._tokens[self._place - 1], self._peek(1)
        words_follow = follows is None or follows.kind == "word"
        self._place += 1
        if token.text == "/":
            if follows is None or follows.kind != "word" or follows.text in CURRENCIES or changes_value(follows.text):
                raise Unreadable("a quotient")
            self._place += 1
        elif token.text == "^":
            power = "".join(self._text(n) or "" for n in range(3))
            digits = next((n for n in ("2", "3") if power.startswith((n, f"{{{n}}}"))), None)
            if digits is None or not (before.text in POWERS_OF or before.text == "m"):
                raise Unreadable("a power of a word")
            self._place += 1 if power.startswith(digits) else 3
        elif token.text in CURRENCIES or token.text == "\u00a2":
            if before.kind == "word":
                raise Unreadable("a second amount")
        elif token.text == "!" and before.kind == "word":
            pass
        elif not (token.text in (",", ".", "'") and words_follow):
            raise Unreadable(f"{token.text!r} after a number")

    def _peek(self, ahead: int = 0) -> Token | None:
        place = self._place + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _text(self, ahead: int = 0) -> str | None:
        token = self._peek(ahead)
        return None if token is None else token.text

    def _take(self, text: str) -> bool:
        found = self._text() == text
        self._place += found
        return found


def _skip_leading(tokens: Sequence[Token]) -> int:
    place = 0
    while place + 1 < len(tokens):
        token, follows = tokens[place], tokens[place + 1]
        if token.kind == "word" and token.text.lower() in LEADING:
            place += 1 + (follows.text in (",", "."))
        elif token.text in _REGIONS and follows.text == "$":
            place += 1
        else:
            break
    return place


def _is_name(tokens: Sequence[Token]) -> bool:
    """Whether a side names a quantity: words, or one variable with its index (``x_1``, ``f(3)``); never ``2x``."""
    tokens = [token for token in tokens[_skip_leading(tokens) :] if token.text != "."]
    letters, place = 0, 0
    while place < len(tokens):
        token = tokens[place]
        follows = tokens[place + 1].text if place + 1 < len(tokens) else ""
        if token.kind == "word" and (token.text.lower() in _DENIALS or changes_name(token.text, follows)):
            return False
        if token.text in _FUNCTIONS and follows == "(":
            place = _closing(tokens, place + 1)
        elif token.text == "_":
            place = _closing(tokens, place + 1) if follows == "{" else place + 1
        elif token.kind == "word":
            letters += len(token.text) == 1 and token.text not in "aAI"
        elif not (token.kind == "name" or token.text in _NAMES or token.text in ("(", ")", "'", "$", "%")):
            return False
        place += 1
    return letters <= 1


def _closing(tokens: Sequence[Token], place: int) -> int:
    """The place of the bracket that closes the one at ``place``; the end where none does."""
    depth = 0
    for index in range(place, len(tokens)):
        depth += (tokens[index].text in _OPEN) - (tokens[index].text in _CLOSE)
        if depth == 0:
            return index
    return len(tokens)


def _split_at_or(tokens: Sequence[Token]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if depth == 0 and token.kind == "word" and token.text.lower() == "or":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _has_word(tokens: Sequence[Token]) -> bool:
    return any(token.kind == "word" for token in tokens)


def _has_number(tokens: Sequence[Token]) -> bool:
    return any(token.kind == "number" for token in tokens)


def _check_agreement(other: Reading, reading: Reading, nearly: bool) -> None:
    """Raise unless both are one value: rounded, as a percentage, or in another unit."""
    margin = 0.5 * 10.0**-reading.decimals if nearly or reading.decimals else 0.0
    pairs = [(other.value, reading.value)]
    if other.percent != reading.percent:
        pairs.append((other.value * 100, reading.value) if reading.percent else (other.value, reading.value * 100))
    here = factor(reading.unit) if reading.unit else None
    there = factor(other.unit) if other.unit else None
    if here and there and here[0] == there[0]:
        pairs = [(other.value * float(there[1] / here[1]), reading.value)]
    if not any(abs(a - b) <= max(_AGREE, margin) for a, b in pairs):
        raise Unreadable("several numbers")

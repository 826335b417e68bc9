"""Read the units, remarks and punctuation after a number, and refuse any that change its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reft_pl.formats.tokens import Token, Unreadable
from reft_pl.formats.words import ATTACHED, CURRENCIES, POWERS_OF, changes_value, factor, number_word

_AGREE = 1e-2


@dataclass(frozen=True, slots=True)
class Reading:
    """A value, its unit if known, and its number of decimals (0 without a decimal point)."""

    value: float
    percent: bool = False
    unit: str | None = None
    decimals: int = 0


Statement: TypeAlias = Callable[[Sequence[Token]], Reading]
"""Reads the value stated by a remark in parentheses."""


class Tail:
    """Reader for the text after an expression: units, remarks and punctuation."""

    def __init__(self, tokens: Sequence[Token], place: int, reading: Reading, state: Statement) -> None:
        self._tokens = tokens
        self._place = place
        self._reading = reading
        self._state = state

    def read(self) -> Reading:
        """Read to the end and return the reading with its unit.

        Raises:
            Unreadable: the text may change the value, or states another one.
        """
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
        """Read ``(1 hour)``, ``(eighteen)`` or ``(in total)``; any number in it must equal the value."""
        depth, start = 0, self._place
        while (token := self._peek()) is not None:
            depth += (token.text == "(") - (token.text == ")")
            self._place += 1
            if depth == 0:
                break
        else:
            raise Unreadable("a bracket that is not closed")
        content = self._tokens[start + 1 : self._place - 1]
        if has_number(content):
            check_agreement(self._state(content), reading, nearly=False)
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


def has_number(tokens: Sequence[Token]) -> bool:
    """Whether any token is a number in digits."""
    return any(token.kind == "number" for token in tokens)


def check_agreement(other: Reading, reading: Reading, nearly: bool) -> None:
    """Raise ``Unreadable`` unless both values agree: up to rounding, as a percentage, or in another unit."""
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

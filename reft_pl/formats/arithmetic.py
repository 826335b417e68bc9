r"""Evaluate tokenised arithmetic exactly (``2^3``, ``5!``, ``\frac12``, ``2\sqrt3``, ``2 1/2``) in bounded time and depth."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from reft_pl.formats.exact import TooLarge, Value, as_float, bounded, factorial, is_finite, is_integer, literal, power
from reft_pl.formats.tokens import Token, Unreadable
from reft_pl.formats.words import CURRENCIES

MAX_DEPTH = 40
_PADDED = re.compile(r"0\d")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


class Arithmetic:
    """A recursive-descent parser that evaluates one expression; it stops at the first token that cannot continue it.

    Precedence is the usual one: powers (right-associative) and factorials, then the sign, then products, then sums. Ambiguous
    expressions raise ``Unreadable``: ``10-15`` (a range?), ``2-1/2`` and ``2 3/2`` (mixed numbers?), ``1/2(3)``, ``12/3/2``.

    Args:
        tokens: The tokens to parse.
        place: Index of the first token. After parsing, ``place`` is the first token outside the expression.
        strict: Whether to refuse ``10-15`` as a range. The left-hand side of an equation is not strict.
    """

    def __init__(self, tokens: Sequence[Token], place: int = 0, *, strict: bool = True) -> None:
        self.tokens = tokens
        self.place = place
        self._strict = strict
        self._depth = 0

    def value(self) -> float:
        """Evaluate the expression; infinite if it is a single number beyond the range of a float.

        Raises:
            TooLarge: a power, factorial or product exceeds the range of a float.
            Unreadable: there is no expression, it is ambiguous, or it has no real value.
        """
        value = self._sum()
        return as_float(value)

    # ---- grammar

    def _sum(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        start = self.place
        value = self._product()
        first_end, terms, spaced_minus = self.place, 1, True
        while (operator := self._operator("+", "-", "plus", "minus")) is not None:
            minus = operator in ("-", "minus")
            spaced_minus = operator == "minus" or self.tokens[self.place - 1].spaced
            begin = self.place
            right = self._product()
            if self._strict and minus and terms == 1:
                self._check_range(start, first_end, begin, spaced_minus, value, right)
            value = self._checked(value - right if minus else value + right, value, right)
            terms += 1
        self._depth -= 1
        return value

    def _check_range(self, start: int, first_end: int, begin: int, spaced: bool, left: Value, right: Value) -> None:
        """Refuse a possible range (``10-15``, ``$10 - $15``), mixed number (``2-1/2``) or date (``2026-11-29``)."""
        bare_left = self._is_bare(self.tokens[start:first_end])
        bare_right = self._is_bare(self.tokens[begin : self.place])
        follows = self._text()
        if bare_left and bare_right and ((0 <= left < right and follows not in ("+", "-")) or (not spaced and follows == "-")):
            raise Unreadable("a range or a difference")
        if not spaced and bare_left and 0 < right < 1 and not bare_right and self.tokens[begin].kind == "number":
            raise Unreadable("a mixed number or a difference")

    @staticmethod
    def _is_bare(tokens: Sequence[Token]) -> bool:
        return all(token.kind == "number" or token.text in CURRENCIES for token in tokens)

    def _product(self) -> Value:
        value = self._signed()
        divided = False
        while True:
            operator = self._operator("*", "/", "times", "x", "X")
            if operator is None:
                if not self._juxtaposed():
                    return value
                if divided:
                    raise Unreadable("a product after a division")
                value = self._times(value, self._power())
                continue
            if operator == "/" and divided:
                raise Unreadable("two divisions")  # or a date
            if _PADDED.match(self._text() or ""):
                raise Unreadable("a factor with leading zeros")  # 1*000 is no product, 12/03 a date
            right = self._signed()
            if operator == "/":
                divided = True
                value = self._divide(value, right)
            else:
                divided = False
                value = self._times(value, right)

    def _signed(self) -> Value:
        sign = 1
        token = self._peek()
        if token is not None and (token.text in ("+", "-") or token.text.lower() in ("minus", "negative")):
            self.place += 1
            sign = 1 if token.text == "+" else -1
            follows = self._peek()
            if follows is None or follows.text in ("+", "-") or follows.text.lower() in ("minus", "negative"):
                raise Unreadable("a sign without a number")
        value = self._power()
        return value if sign > 0 else -value

    def _power(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        value = self._atom()
        if self._take("!"):
            value = factorial(value)
            if self._text() == "!":
                raise Unreadable("a double factorial")
        elif self._text() == "^":
            if "\\degree" in (self._text(1), self._text(2)):
                self._depth -= 1
                return value  # in 90^\circ and 90^{\circ}, the exponent is a unit
            self.place += 1
            sign = -1 if self._take("-") else 1
            exponent = self._power()
            value = power(value, exponent if sign > 0 else -exponent)
        self._depth -= 1
        return value

    def _atom(self) -> Value:
        while self._text() in CURRENCIES:
            self.place += 1
            self._take(".")  # Rs.
        token = self._peek()
        if token is None:
            raise Unreadable("an operator without a number")
        self.place += 1
        if token.kind == "number":
            return self._mixed(literal(token.text))
        if token.text in ("-", "+") and self.place >= 2 and self.tokens[self.place - 2].text in CURRENCIES:
            value = self._power()  # $ -5
            return -value if token.text == "-" else value
        if token.text in _BRACKETS:
            return self._closed(_BRACKETS[token.text])
        return self._command(token)

    def _command(self, token: Token) -> Value:
        if token.text == "\\frac":
            return self._divide(self._argument(), self._argument())
        if token.text == "\\sqrt":
            return self._root()
        if token.text in ("\\pi", "pi"):
            return math.pi
        raise Unreadable(f"{token.text!r} in place of a number")

    def _mixed(self, whole: Value) -> Value:
        r"""Read a mixed number, an integer before a proper fraction of integers: ``2 1/2``, ``2\frac{1}{2}``."""
        if self._text() == "\\frac":
            return self._mixed_latex(whole)
        top, bottom = self._peek(), self._peek(2)
        if top is None or bottom is None or self._text(1) != "/" or top.kind != "number" or bottom.kind != "number":
            return whole
        self._check_before_mixed()
        fraction = self._divide(literal(top.text), literal(bottom.text))
        if not (top.spaced and is_integer(whole) and top.text.isdigit() and bottom.text.isdigit() and fraction < 1):
            raise Unreadable("two numbers")
        if len(top.text) == 3:  # 1 800/1200
            raise Unreadable("a mixed number or a thousands separator")
        self.place += 3
        if self._text() in ("/", "^", "!"):
            raise Unreadable("an operator after a mixed number")
        return whole + fraction

    def _mixed_latex(self, whole: Value) -> Value:
        self._check_before_mixed()
        self.place += 1
        top, bottom = self._argument(), self._argument()
        fraction = self._divide(top, bottom)
        if self._text() in ("^", "!"):
            raise Unreadable("an operator after a mixed number")
        if not all(map(is_integer, (whole, top, bottom))):
            return self._times(whole, fraction)  # 2\frac{\sqrt3}{2}
        if not 0 < fraction < 1:
            raise Unreadable("a mixed number or a product")
        return whole + fraction

    def _check_before_mixed(self) -> None:
        if self.place >= 2 and self.tokens[self.place - 2].text in ("/", "^"):
            raise Unreadable("a mixed number after an operator")

    def _root(self) -> Value:
        degree: Value = Fraction(2)
        if self._take("["):
            degree = self._closed("]")
        token = self._peek()
        if token is not None and token.text == "{":
            radicand = self._argument()
        elif token is not None and token.text == "(":
            radicand = self._atom()
        elif token is not None and token.kind == "number" and self._text(1) not in ("/", "^", "!", "\\frac"):
            self.place += 1
            radicand = literal(token.text)
        elif token is not None and token.text == "\\pi":
            radicand = self._atom()
        else:
            raise Unreadable("an unknown radicand")
        if not is_integer(degree) or not 2 <= degree <= 100 or radicand < 0:
            raise Unreadable("no real root")
        if not math.isfinite(as_float(radicand)):
            raise TooLarge("a radicand beyond the range of a float")
        root = round(as_float(radicand) ** (1 / int(degree)))
        return Fraction(root) if root ** int(degree) == radicand else as_float(radicand) ** (1 / int(degree))

    def _argument(self) -> Value:
        r"""Read one argument of a LaTeX command: a group in braces, or a single character as in ``\frac12``."""
        token = self._peek()
        if token is not None and token.text == "{":
            self.place += 1
            return self._closed("}")
        if token is not None and token.kind == "number" and token.text.isdigit():
            if len(token.text) == 1:
                self.place += 1
                return literal(token.text)
            if len(token.text) == 2 and self.place and self.tokens[self.place - 1].text == "\\frac":
                # The first digit is the numerator, the second the denominator.
                tokens = list(self.tokens)
                tokens[self.place : self.place + 1] = [Token("number", digit) for digit in token.text]
                self.tokens = tokens
                return self._argument()
        if token is not None and token.text == "\\pi":
            self.place += 1
            return math.pi
        raise Unreadable("a LaTeX argument without braces")

    def _closed(self, bracket: str) -> Value:
        strict = self._strict
        self._strict = strict and self.place == 1  # check for a range only if brackets enclose the whole text: (10-15)
        value = self._sum()
        self._strict = strict
        if not self._take(bracket):
            raise Unreadable("a bracket that is not closed")
        return value

    # ---- tokens

    def _peek(self, ahead: int = 0) -> Token | None:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def _text(self, ahead: int = 0) -> str | None:
        token = self._peek(ahead)
        return None if token is None else token.text

    def _take(self, text: str) -> bool:
        found = self._text() == text
        self.place += found
        return found

    def _operator(self, *texts: str) -> str | None:
        token = self._peek()
        if token is None or token.text not in texts:
            return None
        follows = self._peek(1)
        if token.kind == "word":  # 9 x 2, 9 times 2; not 9x or 18 times as many
            if not token.spaced or follows is None or not (follows.spaced and self._begins_value(follows)):
                return None
        elif token.text == "/" and follows is not None and follows.kind in ("word", "name") and follows.text != "pi":
            return None  # 18/day
        self.place += 1
        return token.text

    @staticmethod
    def _begins_value(token: Token) -> bool:
        return token.kind == "number" or token.text in ("(", "\\frac", "\\sqrt", "\\pi", "-") or token.text in CURRENCIES

    def _juxtaposed(self) -> bool:
        r"""Whether the next token is a factor without an operator: ``2\sqrt3``, ``3pi``, ``2(3+4)``."""
        token = self._peek()
        if token is None:
            return False
        if token.text == "(":
            before, inside = self.tokens[self.place - 1], self._peek(1)
            if "." in before.text and inside is not None and inside.text.isdigit() and self._text(2) == ")" and self._strict:
                raise Unreadable("a repeating decimal or a product")  # 0.1(6)
            return not token.spaced
        return token.text in ("\\sqrt", "\\frac", "\\pi") or (token.kind == "word" and token.text in ("pi", "Pi"))

    # ---- values

    def _times(self, left: Value, right: Value) -> Value:
        return self._checked(left * right, left, right)

    def _divide(self, top: Value, bottom: Value) -> Value:
        if bottom == 0:
            raise Unreadable("a division by zero")
        if not is_finite(top) or not is_finite(bottom):
            raise Unreadable("an operand beyond the range of a float")
        if isinstance(top, float) or isinstance(bottom, float):
            return bounded(as_float(top) / as_float(bottom))
        return bounded(top / bottom)

    @staticmethod
    def _checked(value: Value, *operands: Value) -> Value:
        if not all(map(is_finite, operands)):
            raise Unreadable("an operand beyond the range of a float")
        return bounded(value)

r"""Read the single value that a short text states: a number or expression, with its unit and any equation around it."""

from __future__ import annotations

from collections.abc import Sequence

from reft_pl.formats.arithmetic import Arithmetic
from reft_pl.formats.exact import TooLarge
from reft_pl.formats.tail import Reading, Tail, check_agreement, has_number
from reft_pl.formats.tokens import Token, Unreadable, tokenize
from reft_pl.formats.words import (
    CURRENCIES,
    LEADING,
    STATING,
    changes_name,
    changes_value,
    number_word,
)

_EQUALS, _NEARLY = "=", "\u2248"
_REGIONS = frozenset({"US", "CA", "AU", "NZ", "HK"})
_FUNCTIONS = frozenset("fghPp")
_UNDONE = frozenset({"abs", "acos", "asin", "atan", "cbrt", "cos", "exp", "lg", "ln", "log", "root", "sin", "sqrt", "tan"})
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


def stated_value(text: str) -> float:
    """Read the single value that the whole text states; infinite if it exceeds the range of a float.

    The last side of an equation gives the value. All other sides and numbers of the text must agree with it: ``3 + 4 = 7``,
    ``0.5 or 1/2`` and ``60 minutes (1 hour)`` state a value; ``12 or 13``, ``x=3, y=4`` and ``2x = 10`` do not.

    Raises:
        Unreadable: the text states no number or several different ones, or part of it cannot be read.
    """
    try:
        return _statement(tokenize(text), 0).value
    except TooLarge:
        return float("inf")
    except ArithmeticError as error:  # floats round tiny and huge exact values to 0 and infinity
        raise Unreadable(str(error)) from None


def _statement(tokens: Sequence[Token], depth: int) -> Reading:
    if depth > 3:
        raise Unreadable("remarks nested too deeply")
    sides, nearly = _sides(tokens)
    if not sides[-1]:
        raise Unreadable("nothing after an equals sign")
    readings = [_side(side, depth, last=index == len(sides) - 1) for index, side in enumerate(sides) if side or index]
    values = [reading for reading in readings if reading is not None]
    if not values:
        raise Unreadable("no number")
    last = values[-1]
    for reading in values[:-1]:
        check_agreement(reading, last, nearly)
    return last


def _sides(tokens: Sequence[Token]) -> tuple[list[list[Token]], bool]:
    """Split an equation, ``label: value`` or ``Janet makes $18`` into sides; whether the last relation is approximate."""
    sides: list[list[Token]] = [[]]
    depth, nearly = 0, False
    for index, token in enumerate(tokens):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if depth == 0 and token.text == ":":
            if len(sides) > 1 or has_number(sides[-1]) or not sides[-1]:
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
    """Return the value of a side; None for a name (``x``, ``Total cost``), which has no value."""
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
        check_agreement(reading, readings[0], nearly=False)
    return readings[0]


def _value(tokens: Sequence[Token], depth: int) -> Reading:
    """Read ``about $18 per hour``: leading words, an expression, its unit."""
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
        check_agreement(Reading(float(word)), reading, nearly=False)
    return Tail(tokens, end, reading, lambda remark: _statement(remark, depth + 1)).read()


def _working(tokens: Sequence[Token]) -> Reading:
    """Evaluate a calculation with units (``29 species * 7 pairs per species``); a percent sign divides by 100."""
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
    """Whether a side names a quantity: words, or a single variable with its index (``x_1``, ``f(3)``), never ``2x``."""
    tokens = [token for token in tokens[_skip_leading(tokens) :] if token.text != "."]
    letters, place = 0, 0
    while place < len(tokens):
        token = tokens[place]
        follows = tokens[place + 1].text if place + 1 < len(tokens) else ""
        if token.kind == "word" and (token.text.lower() in _DENIALS or changes_name(token.text, follows)):
            return False
        if token.text.lstrip("\\").lower() in _UNDONE and (follows == "(" or len(follows) == 1):
            return False  # ln(x), ln x
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
    """Return the index of the bracket that closes the one at ``place``, or the length of ``tokens`` if none does."""
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

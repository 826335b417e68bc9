r"""Tokenise answers in text and LaTeX: normalise typography that cannot change a number, keep everything else as tokens."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

MAX_TOKENS = 400
"""Answers are short. These limits bound the work on one text, whatever its length."""
MAX_CHARACTERS = 20_000

Kind = Literal["number", "word", "name", "command", "sign"]


class Unreadable(ValueError):  # noqa: N818 (an outcome, not an error)
    """The text is not a number, or is an ambiguous one."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token; ``spaced`` is true if whitespace or the edge of a LaTeX text precedes it.

    A *word* has letters, apostrophes and hyphens (``third-graders``). A *name* also has digits or underscores (``x_1``,
    ``H2O``).
    """

    kind: Kind
    text: str
    spaced: bool = False


_MINUS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
_HIDDEN = "\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff\ufe0f"
_CHARACTERS: dict[int, str] = {
    **dict.fromkeys(map(ord, _MINUS), "-"),
    **dict.fromkeys(map(ord, _HIDDEN), ""),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code) not in _MINUS},
    **dict.fromkeys(map(ord, "\u00b7\u22c5\u2219\u2217\u00d7\u2715\u2716"), "*"),
    **dict.fromkeys(map(ord, "\u00f7\u2044\u2215"), "/"),
    **dict.fromkeys(map(ord, "\u2243\u2245"), "\u2248"),
    **dict.fromkeys(map(ord, "\u21d2\u2192"), "="),
    **dict.fromkeys(map(ord, "\u2018\u2019\u2032"), "'"),
    ord("\u221a"): "\\sqrt ",
    ord("\u03c0"): "\\pi ",
    ord("\U0001d70b"): "\\pi ",
    ord("\u221e"): "\\infty ",
    ord("\u00b0"): "\\degree ",
    ord("\u2103"): "\\degree C",
    ord("\u2109"): "\\degree F",
    0xA0: " ",
}
_DOTS = "\u00b7\u22c5\u2219"
_DOTTED = re.compile(rf"[\d,.'_{_DOTS}]+")
_GROUP_OF_THREE = re.compile(r"\d{3}(?:\.\d*)?")
_RAISED = re.compile(r"\s*(?:\^|\*\*|[\u00b9\u00b2\u00b3\u2070\u2074-\u2079\u207b])")
_RELATION = re.compile("=|\u2248|\u2243|\u2245|\u21d2|\u2192|\\\\(?:approx|simeq|implies|Rightarrow)(?![a-zA-Z])")
_BARE_DIGIT = re.compile(r"(?<!\w)\d")
_EN_DASH_RANGE = re.compile(r"\d[ ]?\u2013[ ]?\d")
_SUPERSCRIPT = re.compile("[\u00b9\u00b2\u00b3\u2070\u2074-\u2079\u207b]+")
_UP = str.maketrans("\u00b9\u00b2\u00b3\u2070\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "1230456789-")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_LATEX_SYMBOLS = {
    "\\cdot": "*", "\\times": "*", "\\ast": "*", "\\div": "/", "\\approx": "\u2248", "\\simeq": "\u2248", "\\implies": "=",
    "\\Rightarrow": "=", "\\lbrace": "{", "\\rbrace": "}", "\\lbrack": "[", "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\circ": "\\degree", "\\colon": ":",
}  # fmt: skip
_LATEX_SPACE = re.compile(
    r"\\(?:left|right|q?quad|(?:display|text)style|therefore|[bB]igg?[lr]?|limits|(?:thin|en)space|boldmath)"
)
_WRAPPER = re.compile(r"\\(?:text\w*|math(?:rm|bf|it|sf|tt|normal)|boxed|[fm]box|emph|underline|operatorname|bm|boldsymbol)")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:(?:,\d{3})+|(?:'\d{3})+|(?:_\d{3})+)(?!\d)")
_NUMBER = re.compile(r"(?P<whole>\d+)?(?:\.(?P<part>\d*))?")
_EXPONENT = re.compile(r"[eE][+-]?\d+(?![\w.])")
_HEAD = re.compile(r"[1-9]\d{0,2}(?:,\d{3})*")
_GROUP = re.compile(r"\s*(\d{3})(?!\d)")
_NUMBER_GOES_ON = re.compile(r"[,.'_]?\d|\.")
_LETTERS = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_WORD = re.compile(rf"[{_LETTERS}](?:[{_LETTERS}\d]|_(?=[{_LETTERS}\d]))*(?:['-][{_LETTERS}]+)*")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_DIGITS = frozenset("0123456789")
_SPACES = re.compile(r"\s+")
_EMPHASIS = re.compile(r"\*\*([^*]+)\*\*(?!\d)")
_PAIRS = {"*": "*", "_": "_", "`": "`", '"': '"', "'": "'", "\u201c": "\u201d", "<": ">"}
_TIMES_TEN = re.compile(r"(?<=\d)[xX](?=10[ ]?(?:\^|\*\*))")


def tokenize(text: str) -> list[Token]:
    """Split a text into tokens, in time linear in its length.

    Raises:
        Unreadable: the text has more than ``MAX_TOKENS`` tokens or ``MAX_CHARACTERS`` characters, or a number with an ambiguous
            continuation (``1,5``, ``0,125``, ``1.2.3``). An en dash between two numbers marks a range. A middle dot may be a
            decimal point (``1\u00b75``).
    """
    return _Tokenizer(_plain(text)).tokens()


def _plain(text: str) -> str:
    """Normalise typography: one character per minus sign, digit and operator; no markup around the whole text."""
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        raise Unreadable("too long")
    if _EN_DASH_RANGE.search(text):
        raise Unreadable("a range")
    _check_dots(text)
    text = _SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(_UP) + "}", text)
    text = _VULGAR.sub(lambda match: _vulgar(match[0]), text).translate(_CHARACTERS)
    if not text.isascii():
        text = "".join(_digit(character) for character in text)
    text = text.replace("{,}", ",").replace("{:}", ":").replace("{.}", ".").replace(",\\!", ",").strip()
    text = _EMPHASIS.sub(r" \1 ", text).strip()
    text = text.removesuffix("**").strip()  # the emphasis starts before the answer: **Answer: 18**
    text = text.strip("$ \t\r\n") if text.count("$") > 1 else text
    for _ in range(8):
        text = text.removesuffix(".").strip() if not text.endswith("..") else text
        if len(text) < 3 or _PAIRS.get(text[0]) != text[-1] or text.count(text[0]) != 1 + (text[0] == text[-1]):
            break
        text = text[1:-1].strip()
    return _TIMES_TEN.sub("*", text)


def _check_dots(text: str) -> None:
    """Refuse a middle dot that may be a decimal point or separate thousands (``1\u00b75``, ``1\u00b7000``).

    In a calculation before an equals sign it is a product, which must agree with the number after the sign.
    """
    *before, last = _RELATION.split(text)
    if not before or not _BARE_DIGIT.search(last):  # 1\u00b7000 = x states its first side
        last = text
    for match in _DOTTED.finditer(last):
        run = match[0].lstrip(",'_").rstrip(",.'_")
        first, *others = re.split(f"[{_DOTS}]", run)
        if not others or not first or not all(other[:1].isdigit() for other in others):
            continue
        grouped = len(first) <= 3 and first.isdigit() and all(_GROUP_OF_THREE.fullmatch(other) for other in others)
        ten = others[-1] == "10"  # 3\u00b710^5 is a product, and 6\u00b702\u00b710^23 may have a decimal point
        decimal = ten if len(others) > 1 else not (ten and _RAISED.match(last, match.end()))
        if grouped or (decimal and "." not in first and run[len(first)] == "\u00b7"):
            raise Unreadable("a decimal point, separated thousands or a product")


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _vulgar(character: str) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", character).partition("\u2044")
    return f" \\frac{{{top}}}{{{bottom}}} "


class _Tokenizer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._spaced = False
        self._tokens: list[Token] = []
        self._braces: list[bool] = []  # whether each open brace belongs to a wrapper such as \text, which shows its contents

    def tokens(self) -> list[Token]:
        while self._place < len(self._text):
            if len(self._tokens) >= MAX_TOKENS:
                raise Unreadable("too long")
            self._next()
        return self._tokens

    def _next(self) -> None:
        text, start = self._text, self._place
        character = text[start]
        if match := _SPACES.match(text, start):
            self._skip(match.end())
        elif character in _DIGITS or (character == "." and self._begins_decimal()):
            self._number()
        elif match := _WORD.match(text, start):
            plain = not any(c.isdigit() or c == "_" for c in match[0])
            self._add("word" if plain else "name", match[0], match.end())
        elif match := _COMMAND.match(text, start):
            self._command(match)
        elif character == "\\":
            self._escape()
        elif character == "~":
            self._skip(start + 1)
        elif character == "{":
            self._braces.append(False)
            self._add("sign", "{", start + 1)
        elif character == "}" and self._braces and self._braces.pop():
            self._skip(start + 1)
        elif text.startswith("**", start):
            self._add("sign", "^", start + 2)
        else:
            self._add("sign", character, start + 1)

    def _add(self, kind: Kind, text: str, end: int) -> None:
        self._tokens.append(Token(kind, text, self._spaced))
        self._spaced = False
        self._place = end

    def _skip(self, end: int) -> None:
        self._spaced = True
        self._place = end

    def _begins_decimal(self) -> bool:
        """Whether the point here begins a number: ``.5`` does, the point of ``Rs.500`` and ``approx.5`` does not."""
        abbreviates = not self._spaced and bool(self._tokens) and self._tokens[-1].kind in ("word", "name")
        return not abbreviates and self._text[self._place + 1 : self._place + 2] in _DIGITS

    def _number(self) -> None:
        text, start = self._text, self._place
        match = _GROUPED.match(text, start)
        end = match.end() if match else start
        digits = re.sub("[,'_]", "", match[0]) if match else ""
        if not match or (text[end : end + 1] == "." and text[end + 1 : end + 2] != "."):
            decimal = _NUMBER.match(text, end)
            assert decimal is not None  # both parts are optional
            digits += decimal[0]
            end = decimal.end()
        if exponent := _EXPONENT.match(text, end):
            digits += exponent[0]
            end = exponent.end()
        if _NUMBER_GOES_ON.match(text, end):
            raise Unreadable("a number with an ambiguous continuation")
        self._add("number", digits, end)

    def _command(self, match: re.Match[str]) -> None:
        name, end = match[0], match.end()
        if _LATEX_SPACE.fullmatch(name):
            self._skip(end)
        elif _WRAPPER.fullmatch(name):
            brace = _SPACES.match(self._text, end)
            end = brace.end() if brace else end
            if self._text[end : end + 1] != "{":
                raise Unreadable(f"{name} without braces")
            self._braces.append(True)
            self._skip(end + 1)
        else:
            symbol = _LATEX_SYMBOLS.get(name, name)
            self._add("command" if symbol.startswith("\\") else "sign", symbol, end)

    def _escape(self) -> None:
        """Read a backslash before a sign: a LaTeX space, or the escaped sign itself (such as a dollar sign)."""
        text, start = self._text, self._place
        sign = text[start + 1 : start + 2]
        if sign and sign in ",;:! ":
            self._skip(start + 2)
            after = self._tokens[-1] if self._tokens else None
            group = _GROUP.match(text, self._place) if sign in ",;:" and after is not None else None
            if after is not None and group and _HEAD.fullmatch(after.text):
                self._tokens[-1] = replace(after, text=f"{after.text},{group[1]}")  # 10\,000 means ten thousand
                self._spaced = False
                self._place = group.end()
        elif sign and sign in "$%&#_()[]":
            if sign in "()[]":
                self._skip(start + 2)  # \( and \[ open mathematics
            else:
                self._place = start + 1
        else:
            raise Unreadable("an unknown escape")

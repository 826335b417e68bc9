"""Derive variable names for the steps of a program from the words around them."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Sequence

MOST_WORDS = 4


def _all(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*|[^\sA-Za-z]+")  # noqa: RUF001
# Words that end a clause: the text after them is about something else.
_ENDS = _all(
    "so because since and but which that if when while where who as is are was were will would has have had can could "
    "he she they it we you i then than or to out meaning making leaving this there they're it's do does did not"
)
_LEFT_OUT = _all("a an the his her their its our your my each every all both this that these those some him them us me")
_PREPOSITIONS = _all("of in on for from to at by with per into over after before during between about under through")
_VAGUE = _all("more less only also still just worth altogether combined total remaining left each")
_NOISE = _all(
    "thus therefore hence first next finally lastly means mean now equal equals equivalent find let's know knows must "
    "also been being let say will would can could should if since that which there so because then and but is are was "
    "were"
)
_PER = _all("minute hour day night week month year person student child box bag")
_PRONOUNS = _all("he she they it we you i they're it's")
_TAKEN = (
    frozenset(dir(builtins))
    | frozenset(keyword.kwlist)
    | frozenset(keyword.softkwlist)
    | {"result", "solution", "math", "sympy"}
)


def name_after(text: str, currency: bool) -> list[str]:
    """Return the words for a counted thing from the text after its number: ``24 clips in May.`` gives clips, in, may.

    Args:
        text: The rest of the line after the number.
        currency: Whether a currency sign precedes the number.
    """
    words: list[str] = []
    found = _words(text)
    for word, following in zip(found, [*found[1:], ""], strict=False):
        if not word[0].isalpha() or word in _ENDS or len(words) == MOST_WORDS:
            break
        if word in ("a", "an", "each", "every") and following in _PER:
            words.append("per")
        elif word not in _LEFT_OUT:
            words.append(word)
    if words[:1] == ["per"] and len(words) > 1:
        return _trimmed(["dollars" if currency else "amount", *words])
    if not words or words[0] in _PREPOSITIONS or (words[0] in _VAGUE and (len(words) == 1 or words[1] in _PREPOSITIONS)):
        return []
    return _trimmed(words)


def name_before(text: str) -> list[str]:
    """Return the words for a subject from the text before its equation: ``The total cost is`` gives total, cost."""
    clause = re.split(r"[.,;:=?!]\s|[:=]", text.rstrip(" :=$("))[-1]
    if len(parts := re.split(r"\b(?:so|and|then|but)\b", clause)) > 1 and len(_words(parts[-1])) > 1:
        clause = parts[-1]
    words = [word for word in _words(clause) if word[0].isalpha() and len(word) > 1]
    kept = [word for word in words if word not in _LEFT_OUT | _NOISE | _PRONOUNS]
    return _trimmed(kept[:MOST_WORDS] if len(kept) <= MOST_WORDS + 2 else kept[-MOST_WORDS:])


def identifier(words: Sequence[str], taken: Collection[str], fallback: str) -> str:
    """Build an unused variable name from words; ``fallback`` if the words give none."""
    parts = [re.sub(r"[^a-z0-9_]", "", word.removesuffix("'s").replace("-", "_")) for word in words]
    name = "_".join(part for part in parts if part) or fallback
    if name in _TAKEN:
        name = f"{name}_value"
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    return unique


def _trimmed(words: list[str]) -> list[str]:
    while words and words[-1] in _PREPOSITIONS:
        words = words[:-1]
    while words and words[0] in _PREPOSITIONS:
        words = words[1:]
    return words


def _words(text: str) -> list[str]:
    return [match[0].lower().replace("’", "'") for match in _WORD.finditer(text)]  # noqa: RUF001

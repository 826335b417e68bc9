"""Every parser of model-written text takes linear time: a million characters in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from reft_pl.errors import UserError
from reft_pl.formats import Chat, NaturalLanguage, PythonProgram
from reft_pl.formats.options import option_values, read_options
from reft_pl.formats.parsing import last_boxed, parse_choice, parse_number, read_answer
from reft_pl.formats.shortcuts import is_constant_of, letter_from_another_value
from reft_pl.types import Problem

LENGTH = 1_000_000
SECONDS = 8.0  # each takes under 2 s on an idle core; quadratic ones take hours
PROBLEM, CHOICE = Problem("q", "How many?", 1.0), Problem("q", "Which?\na ) 1 , b ) 2", "a")
PHRASE = "Therefore, the answer is: "
PIECES = [
    r"\boxed{", r"\boxed ", "{", "}", "(", "[", "*", "-", "9", "9,", "1,111", "9 ", "9^", r"\frac", r"\frac{1}", r"\text{",
    "\\", "#",
    "####", "#### ", "####\n", "```\n", "``` ", "   ", "\n", "a ", "a)", "(a", "option ", "x=", "or ", ". the answer is",
    "so\n", "so ",
    '"""', "\u00b2", "\u00bd", "1e", "_", "9/", "%", r"1\,000", "**a", "1\u2013", "\r", PHRASE, "dozen, ",
]  # fmt: skip

LONG = {r"\boxed{", "(", "9", "   ", "``` ", "a)"}  # at the full length; the others at a twentieth, to keep the test short


def _target(form: Chat | NaturalLanguage | PythonProgram, solution: str) -> None:
    with suppress(UserError):
        form.target_text(replace(PROBLEM, solution=solution))


PARSERS: dict[str, Callable[[str], object]] = {
    "boxed": lambda text: Chat().answer(PROBLEM, text),
    "in a box": lambda text: Chat().answer(CHOICE, "\\boxed{" + text + "}"),
    "last box": last_boxed,
    "hashes": lambda text: Chat("####").answer(PROBLEM, "#### " + text),
    "pattern": lambda text: Chat(r"ANSWER:\s*(.*)").answer(PROBLEM, text),
    "words": lambda text: NaturalLanguage().answer(PROBLEM, PHRASE + text),
    "choice": lambda text: NaturalLanguage().answer(CHOICE, PHRASE + text),
    "solution": lambda text: NaturalLanguage().solution_in(PROBLEM, text),
    "fences": lambda text: Chat("program").program(PROBLEM, text),
    "fence": lambda text: Chat("program").program(PROBLEM, "```python\n" + text),
    "program": lambda text: PythonProgram().program(PROBLEM, text),
    "number": parse_number,
    "letter": parse_choice,
    "short letter": lambda text: [parse_choice(text[:2000]) for _ in range(20)],
    "either": lambda text: read_answer(text, None),
    "constant": lambda text: is_constant_of(1.0, text),
    "shortcut": lambda text: letter_from_another_value("a", CHOICE.question, text),
    "options": lambda text: option_values(read_options(text)),
    "words to learn": lambda text: _target(NaturalLanguage(), text),
    "words and a line": lambda text: _target(NaturalLanguage(), text + "\nend"),
    "chat to learn": lambda text: _target(Chat("program"), text),
    "program to learn": lambda text: _target(PythonProgram(), "def solution():\n" + text),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_million_characters(name: str) -> None:
    for piece in PIECES:
        length = LENGTH if piece in LONG else LENGTH // 20
        text = (piece * (length // len(piece) + 1))[:length]
        begin = time.perf_counter()
        PARSERS[name](text)
        assert time.perf_counter() - begin < SECONDS, piece

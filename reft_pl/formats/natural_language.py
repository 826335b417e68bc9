"""Solutions in plain words that end in a fixed phrase with the answer."""

from __future__ import annotations

import re

from typing_extensions import override

from reft_pl.errors import UserError
from reft_pl.formats.base import ChatTemplate, CoTFormat
from reft_pl.formats.parsing import answer_text, read_answer
from reft_pl.formats.question import plain_input
from reft_pl.types import ExecutionResult, Problem

PHRASE = "Therefore, the answer is:"

# Annotations may end in a conclusion of their own ("Therefore, the answer is <203>."). It is taken off where it is a sentence
# by itself, so that the target concludes once and in one form. Bounded blanks keep the search linear: self-training reads
# solutions
# that a model wrote.
_OWN_CONCLUSION = re.compile(
    r"(?:^|\n|(?<=[.!?])[ \t]{1,9})[ \t]{0,9}(?:(?:therefore|so|thus|hence),?\s{1,9})?(?P<phrase>the answer is)", re.IGNORECASE
)
_LONGEST = 64  # of what the pattern matches


class NaturalLanguage(CoTFormat):
    """The natural-language form of the paper: the reasoning, then ``Therefore, the answer is: {answer}`` on the last line."""

    @override
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        return plain_input(problem)

    @override
    def target_text(self, problem: Problem) -> str:
        if problem.solution is None or problem.answer is None:
            raise UserError(
                f"{problem.id} has no annotated solution with an answer to train on; give the source a solution field, or "
                "go without SFT"
            )
        reasoning = _reasoning(problem.solution.strip())
        return "\n".join(filter(None, [reasoning, f"{PHRASE} {answer_text(problem.answer)}"]))

    @override
    def solution_in(self, problem: Problem, response: str) -> str | None:
        reasoning, phrase, rest = response.rpartition(PHRASE)
        return f"{reasoning}{phrase} {_stated(rest)}" if phrase else None

    @override
    def answer(self, problem: Problem, response: str) -> ExecutionResult:
        _, phrase, rest = response.rpartition(PHRASE)
        return read_answer(_stated(rest) if phrase else None, problem.answer)

    @override
    def settings(self) -> dict[str, object]:
        return {"class_path": "reft_pl.formats.NaturalLanguage", "init_args": {}}


def _stated(rest: str) -> str:
    """The line of the answer, of what follows the phrase."""
    return rest.strip().split("\n", 1)[0]


def _reasoning(solution: str) -> str:
    """A solution without a conclusion of its own in the last line."""
    last_line = solution.rfind("\n") + 1
    for match in _OWN_CONCLUSION.finditer(solution, max(0, last_line - _LONGEST)):
        if match.start("phrase") >= last_line:
            return solution[: match.start()].rstrip()
    return solution

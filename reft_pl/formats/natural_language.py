"""The natural-language format: reasoning that ends in a fixed phrase with the answer."""

from __future__ import annotations

import re

from typing_extensions import override

from reft_pl.errors import UserError
from reft_pl.formats.base import ChatTemplate, CoTFormat, plain_input
from reft_pl.formats.parsing import answer_text, read_answer
from reft_pl.types import ExecutionResult, Problem

PHRASE = "Therefore, the answer is:"

# Annotations may already end in a conclusion ("Therefore, the answer is <203>."). If it is a separate sentence, it is removed,
# so that every target has exactly one conclusion. Bounded whitespace keeps the search linear, since self-training parses
# model-written solutions.
_OWN_CONCLUSION = re.compile(
    r"(?:^|\n|(?<=[.!?])[ \t]{1,9})[ \t]{0,9}(?:(?:therefore|so|thus|hence),?\s{1,9})?(?P<phrase>the answer is)", re.IGNORECASE
)
_LONGEST = 64  # longest match of the pattern, in characters


class NaturalLanguage(CoTFormat):
    """The paper's natural-language format: the reasoning, then ``Therefore, the answer is: {answer}`` as the last line."""

    @override
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        return plain_input(problem)

    @override
    def target_text(self, problem: Problem) -> str:
        if problem.solution is None or problem.answer is None:
            raise UserError(
                f"{problem.id} has no annotated solution with an answer to train on; set the source's solution field, or "
                "skip SFT"
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
    """Return the first line after the phrase, which states the answer."""
    return rest.strip().split("\n", 1)[0]


def _reasoning(solution: str) -> str:
    """Return a solution without the conclusion in its last line, if it has one."""
    last_line = solution.rfind("\n") + 1
    for match in _OWN_CONCLUSION.finditer(solution, max(0, last_line - _LONGEST)):
        if match.start("phrase") >= last_line:
            return solution[: match.start()].rstrip()
    return solution

"""Solutions as Python programs: a ``solution()`` whose docstring restates the question and whose return value is the answer."""

from __future__ import annotations

import ast
import re
import textwrap

from typing_extensions import override

from reft_pl.errors import UserError
from reft_pl.formats.base import ChatTemplate, CoTFormat
from reft_pl.formats.question import plain_input
from reft_pl.types import ExecutionResult, Problem

_INDENT = "    "
_HEAD = re.compile(r"\s*def solution\(\s*\)(?:\s*->[^:\n]+)?:[ \t]*\n")
_DOCSTRING = re.compile(r'[ \t]*"""(?P<double>.*?)"""[ \t]*(?:\n|$)|[ \t]*\'\'\'(?P<single>.*?)\'\'\'[ \t]*(?:\n|$)', re.DOTALL)
_BLANK_LINE = re.compile(r"^[ \t\r\f\v]*\n", re.MULTILINE)


class PythonProgram(CoTFormat):
    """The program form of the paper: ``def solution():``, the question as docstring, assignments, ``return result``.

    The two given lines are rebuilt from *this* problem's question, so that the sampling prompt and the training text agree even
    where an annotated program restates the question in other characters.
    """

    runs_programs = True

    @override
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        return plain_input(problem)

    @override
    def given_text(self, problem: Problem) -> str:
        return f'def solution():\n{_INDENT}"""{docstring(problem.question)}"""\n'

    @override
    def target_text(self, problem: Problem) -> str:
        if problem.solution is None:
            raise UserError(
                f"{problem.id} has no annotated program to train on; give the source a solution field, or go without SFT"
            )
        return self.given_text(problem) + _body(problem)

    @override
    def solution_in(self, problem: Problem, response: str) -> str | None:
        return self.program(problem, response)  # what follows the program was never run

    @override
    def program(self, problem: Problem, response: str) -> str | None:
        # The model may close the docstring in its own way, so a question's own blank lines are told from the one that ends the
        # program by how far the response still follows the given lines.
        given = self.given_text(problem)
        same = next((i for i, pair in enumerate(zip(given, response, strict=False)) if pair[0] != pair[1]), len(given))
        blank = _BLANK_LINE.search(response, same)
        program = response[: blank.start()] if blank else response
        return program if program.strip() else None

    @override
    def answer(self, problem: Problem, response: str) -> ExecutionResult:
        raise TypeError("PythonProgram responses are programs: run them in a sandbox")

    @override
    def settings(self) -> dict[str, object]:
        return {"class_path": "reft_pl.formats.PythonProgram", "init_args": {}}


def docstring(question: str) -> str:
    """Escape a question so that it can stand between triple quotes and is read back by Python as it was."""
    escaped = question.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("\0", "\\x00").replace("\r", "\\r")
    quotes_at_end = len(question) - len(question.rstrip('"'))
    return escaped[:-1] + '\\"' if quotes_at_end % 3 else escaped  # of whole threes the last is escaped already


def _function(solution: str) -> str:
    """The function without what follows it, which no call of it runs; all where it is no Python."""
    try:
        return ast.get_source_segment(solution, ast.parse(solution).body[0]) or solution
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        return solution


def _body(problem: Problem) -> str:
    """What follows the docstring of an annotated program, without blank lines (one would end the program)."""
    solution = _function(problem.solution or "")
    head = _HEAD.match(solution)
    if head is None:
        raise UserError(
            f"the annotated solution of {problem.id} does not start with 'def solution():' but with {solution.strip()[:40]!r}; "
            "choose another data.format, or annotate it with a program"
        )
    rest = solution[head.end() :]
    own = _DOCSTRING.match(rest)
    lines = [line.rstrip() for line in rest[own.end() if own else 0 :].splitlines() if line.strip()]
    if not lines:
        raise UserError(f"the annotated program of {problem.id} has nothing after its docstring")
    body = "\n".join(lines)
    if not re.match(rf"{_INDENT}\S", body):
        body = textwrap.indent(textwrap.dedent(body), _INDENT)
    return body

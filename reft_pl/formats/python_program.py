"""The program format: ``solution()`` restates the question in its docstring and returns the answer."""

from __future__ import annotations

import ast
import re
import textwrap

from typing_extensions import override

from reft_pl.errors import UserError
from reft_pl.formats.base import ChatTemplate, CoTFormat, plain_input
from reft_pl.types import ExecutionResult, Problem

_INDENT = "    "
_HEAD = re.compile(r"\s*def solution\(\s*\)(?:\s*->[^:\n]+)?:[ \t]*\n")
_DOCSTRING = re.compile(r'[ \t]*"""(?P<double>.*?)"""[ \t]*(?:\n|$)|[ \t]*\'\'\'(?P<single>.*?)\'\'\'[ \t]*(?:\n|$)', re.DOTALL)
_BLANK_LINE = re.compile(r"^[ \t\r\f\v]*\n", re.MULTILINE)


class PythonProgram(CoTFormat):
    """The paper's program format: ``def solution():``, the question as docstring, assignments, ``return result``.

    The two given lines are always built from the problem's question. The sampling prompt and the training text therefore agree
    even if an annotated program restates the question with different characters.
    """

    runs_programs = True

    @override
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        return plain_input(problem)

    @override
    def given_text(self, problem: Problem) -> str:
        lines = _body(problem).split("\n")[: problem.given_lines] if problem.given_lines else []
        return _head(problem) + "".join(f"{line}\n" for line in lines)

    @override
    def lines_to_give(self, problem: Problem) -> int:
        try:
            return 0 if problem.solution is None else _body(problem).count("\n")  # all but the last one
        except UserError:  # no program: sampling does not need one
            return 0

    @override
    def target_text(self, problem: Problem) -> str:
        if problem.solution is None:
            raise UserError(f"{problem.id} has no annotated program to train on; set the source's solution field, or skip SFT")
        return _head(problem) + _body(problem)

    @override
    def solution_in(self, problem: Problem, response: str) -> str | None:
        return self.program(problem, response)  # text after the program was never run

    @override
    def program(self, problem: Problem, response: str) -> str | None:
        # A question may contain blank lines, so the one that ends the program is searched only after the point where the
        # response stops matching the given lines. The model may also close the docstring differently.
        given = self.given_text(problem)
        same = next((i for i, pair in enumerate(zip(given, response, strict=False)) if pair[0] != pair[1]), len(given))
        blank = _BLANK_LINE.search(response, same)
        program = response[: blank.start()] if blank else response
        return program if program.strip() else None

    @override
    def answer(self, problem: Problem, response: str) -> ExecutionResult:
        raise TypeError("PythonProgram responses are programs: run them in a sandbox instead of parsing them")

    @override
    def settings(self) -> dict[str, object]:
        return {"class_path": "reft_pl.formats.PythonProgram", "init_args": {}}


def _head(problem: Problem) -> str:
    """Return the two lines that every prompt holds."""
    return f'def solution():\n{_INDENT}"""{docstring(problem.question)}"""\n'


def docstring(question: str) -> str:
    """Escape a question for a triple-quoted string, so that Python reads it back unchanged."""
    escaped = question.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("\0", "\\x00").replace("\r", "\\r")
    quotes_at_end = len(question) - len(question.rstrip('"'))
    return escaped[:-1] + '\\"' if quotes_at_end % 3 else escaped  # in a multiple of three, the last one is already escaped


def _function(solution: str) -> str:
    """Return the first statement alone, since code after the function never runs; the whole text if it does not parse."""
    try:
        return ast.get_source_segment(solution, ast.parse(solution).body[0]) or solution
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        return solution


def _body(problem: Problem) -> str:
    """Return an annotated program's body after the docstring, without blank lines, since one would end the program."""
    solution = _function(problem.solution or "")
    head = _HEAD.match(solution)
    if head is None:
        raise UserError(
            f"the annotated solution of {problem.id} does not start with 'def solution():' but with {solution.strip()[:40]!r}; "
            "set another data.format, or annotate the problem with a program"
        )
    rest = solution[head.end() :]
    own = _DOCSTRING.match(rest)
    lines = [line.rstrip() for line in rest[own.end() if own else 0 :].splitlines() if line.strip()]
    if not lines:
        raise UserError(f"the annotated program of {problem.id} has no code after its docstring; correct the annotation")
    body = "\n".join(lines)
    if not re.match(rf"{_INDENT}\S", body):
        body = textwrap.indent(textwrap.dedent(body), _INDENT)
    return body

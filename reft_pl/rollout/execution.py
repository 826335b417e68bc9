"""From a response to its answer: a program is run, a text is read."""

from __future__ import annotations

from collections.abc import Sequence

from reft_pl.formats.base import CoTFormat
from reft_pl.sandbox.base import Sandbox
from reft_pl.types import ExecutionResult, Problem, Status


def execute_responses(
    cot_format: CoTFormat, sandbox: Sandbox, problems: Sequence[Problem], responses: Sequence[str]
) -> list[ExecutionResult]:
    """The result of each response, in order.

    Args:
        cot_format: Says whether responses are programs, and finds the program or the answer in them.
        sandbox: Runs the programs. It sees the program alone, never the problem.
        problems: What each response is about.
        responses: Whole responses, given lines included.
    """
    if not cot_format.runs_programs:
        return [cot_format.answer(problem, response) for problem, response in zip(problems, responses, strict=True)]
    programs = [cot_format.program(problem, response) for problem, response in zip(problems, responses, strict=True)]
    ran = iter(sandbox.run([program for program in programs if program is not None]))
    missing = ExecutionResult(Status.NO_SOLUTION, backend="text", detail="no program in the response")
    return [missing if program is None else next(ran) for program in programs]

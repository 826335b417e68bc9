"""From a response to its answer: a program is run, a text is read."""

from __future__ import annotations

from reft_pl.formats.base import CoTFormat
from reft_pl.sandbox.base import Execution
from reft_pl.types import ExecutionResult, Problem, Status

_NO_PROGRAM = ExecutionResult(Status.NO_SOLUTION, backend="text", detail="no program in the response")


class ResponseExecution:
    """Responses that are executed as they arrive, in any order.

    Args:
        cot_format: Says whether responses are programs, and finds the program or the answer in them.
        execution: Runs the programs. It sees the program alone, never the problem.
    """

    def __init__(self, cot_format: CoTFormat, execution: Execution) -> None:
        self._format = cot_format
        self._execution = execution
        self._read: list[ExecutionResult | None] = []  # None: a program, whose result the execution has

    def submit(self, problem: Problem, response: str) -> None:
        """Read a text at once; begin to run a program. ``response`` is whole, given lines included."""
        if not self._format.runs_programs:
            self._read.append(self._format.answer(problem, response))
            return
        program = self._format.program(problem, response)
        self._read.append(_NO_PROGRAM if program is None else None)
        if program is not None:
            self._execution.submit(program)

    def results(self) -> list[ExecutionResult]:
        """Wait for all programs and return one result per response, in the order of ``submit``."""
        ran = iter(self._execution.results())
        return [next(ran) if result is None else result for result in self._read]

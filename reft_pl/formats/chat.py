"""The chat format: prompts through the tokenizer's chat template, answers located by a pattern."""

from __future__ import annotations

import re

import regex
from typing_extensions import override

from reft_pl.errors import UserError
from reft_pl.formats.base import ChatTemplate, CoTFormat
from reft_pl.formats.markers import SEARCHED, SECONDS, AnswerPattern, after_hashes, code_blocks
from reft_pl.formats.parsing import BACKEND, answer_text, last_boxed, read_answer
from reft_pl.types import ExecutionResult, Problem, Status

_BOXED, _HASHES, _PROGRAM = "boxed", "####", "program"
_SPELLINGS = {"\\boxed{}": _BOXED, "\\boxed": _BOXED, "hash": _HASHES}
_INSTRUCTIONS = {
    _BOXED: "Think step by step and put the final answer in \\boxed{}.",
    _HASHES: "Think step by step and end with the final answer on a line of its own after ####.",
    _PROGRAM: "Write a Python function solution() without arguments that returns the answer, in one ```python block.",
}


class Chat(CoTFormat):
    r"""Put each question in one user message, rendered by the chat template. Needs no annotated solutions.

    Args:
        answer_pattern: Where a response states its answer: ``boxed`` (the last ``\boxed{}``), ``####`` (the rest of the line
            after the last one), ``program`` (``solution()`` in the last code fence, run in the sandbox), or a regular
            expression with one group. The last match of a regular expression counts. It searches the last 4,096 characters;
            if that takes more than a second, the response gets the status ``timeout`` and no answer.
        instruction: Text after the question; null uses the default for the pattern, an empty text adds nothing.
        system: The system message; null leaves it to the template.
    """

    uses_chat_template = True

    def __init__(self, answer_pattern: str = "boxed", instruction: str | None = None, system: str | None = None) -> None:
        self.answer_pattern = _SPELLINGS.get(answer_pattern, answer_pattern)
        self.instruction = instruction
        self.system = system
        self._expression = None if self.answer_pattern in _INSTRUCTIONS else _expression(answer_pattern)
        self.runs_programs = self.answer_pattern == _PROGRAM

    @override
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        if chat_template is None:
            raise UserError(
                "the Chat format needs a tokenizer with a chat template; use an instruct model, or set another data.format"
            )
        return chat_template(self.messages(problem))

    @override
    def messages(self, problem: Problem) -> list[dict[str, str]]:
        instruction = _INSTRUCTIONS.get(self.answer_pattern, "") if self.instruction is None else self.instruction
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages.append({"role": "user", "content": "\n\n".join(filter(None, [problem.question, instruction]))})
        return messages

    @override
    def target_text(self, problem: Problem) -> str:
        if problem.solution is None or problem.answer is None:
            raise UserError(
                f"{problem.id} has no annotated solution with an answer to train on; set the source's solution field, or "
                "skip SFT"
            )
        solution = problem.solution.strip()
        if self.answer_pattern == _PROGRAM:
            return solution if next(code_blocks(solution), None) is not None else f"```python\n{solution}\n```"
        try:
            stated = self._stated(solution)
        except TimeoutError:
            raise UserError(
                f"the answer pattern {self.answer_pattern!r} takes over {SECONDS:g} s on the solution of {problem.id}: "
                "simplify the pattern"
            ) from None
        if stated is not None:
            return solution
        answer = answer_text(problem.answer)
        if self.answer_pattern == _BOXED:
            return f"{solution}\nThe answer is \\boxed{{{answer}}}."
        if self.answer_pattern == _HASHES:
            return f"{solution}\n#### {answer}"
        raise UserError(
            f"the annotated solution of {problem.id} does not match the answer pattern {self.answer_pattern!r}, so a model "
            "trained on it would write unreadable answers: correct the pattern or the solution"
        )

    @override
    def program(self, problem: Problem, response: str) -> str | None:
        if self.answer_pattern != _PROGRAM:
            return None
        blocks = list(code_blocks(response))
        with_solution = [block for block in blocks if "def solution(" in block]
        found = with_solution or blocks
        return found[-1] if found else None

    @override
    def answer(self, problem: Problem, response: str) -> ExecutionResult:
        if self.answer_pattern == _PROGRAM:
            raise TypeError("these responses contain programs: run them in a sandbox instead of parsing them")
        try:
            return read_answer(self._stated(response), problem.answer)
        except TimeoutError:
            detail = f"the answer pattern takes over {SECONDS:g} s on the last {SEARCHED} characters: simplify the pattern"
            return ExecutionResult(Status.TIMEOUT, seconds=SECONDS, backend=BACKEND, detail=detail)

    @override
    def settings(self) -> dict[str, object]:
        arguments = {"answer_pattern": self.answer_pattern, "instruction": self.instruction, "system": self.system}
        return {"class_path": "reft_pl.formats.Chat", "init_args": arguments}

    def _stated(self, response: str) -> str | None:
        """Return the text that the pattern finds, or None."""
        if self._expression is not None:
            return self._expression.last(response)
        if self.answer_pattern == _BOXED:
            return last_boxed(response)
        return after_hashes(response)


def _expression(pattern: str) -> AnswerPattern:
    try:
        re.compile(pattern)
        expression = AnswerPattern(pattern)
    except (re.error, regex.error) as error:
        raise UserError(f"the answer pattern {pattern!r} is not a regular expression: {error}") from None
    if expression.groups != 1:
        raise UserError(
            f"the answer pattern {pattern!r} has {expression.groups} groups: use boxed, ####, program, or a regular "
            "expression with exactly one group around the answer"
        )
    return expression

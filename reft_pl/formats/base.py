"""The CoT format interface: write prompts and targets, and read answers from responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from reft_pl.types import ExecutionResult, Problem

ChatTemplate = Callable[[list[dict[str, str]]], str]
"""Renders chat messages as text with the generation prompt (``apply_chat_template`` of a tokenizer, untokenised)."""


class CoTFormat(ABC):
    """How problems and solutions are written as text. Knows nothing about token ids.

    A training text is ``input_text`` and ``target_text``, tokenised separately and concatenated. A sampling prompt is
    ``input_text`` and the tokens of ``given_text`` (a prefix of every target) that do not depend on what follows.
    """

    #: Whether responses are programs for a sandbox (``program``) or texts to parse (``answer``).
    runs_programs: bool = False

    #: Whether ``input_text`` needs the tokenizer's chat template.
    uses_chat_template: bool = False

    @abstractmethod
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        """Return the text before the solution."""

    def messages(self, problem: Problem) -> list[dict[str, str]] | None:
        """Return the chat messages before the solution; None if the prompt is not a chat."""
        return None

    def given_text(self, problem: Problem) -> str:
        """Return the start of the solution that the sampling prompt already contains; empty if the format fixes none."""
        return ""

    def lines_to_give(self, problem: Problem) -> int:
        """Return how many lines of the annotated solution ``given_text`` can hold (``Problem.given_lines``)."""
        return 0

    @abstractmethod
    def target_text(self, problem: Problem) -> str:
        """Return the annotated solution as the training target, without EOS; it starts with ``given_text``.

        Raises:
            UserError: the problem has no annotated solution, or the solution does not fit this format.
        """

    def solution_in(self, problem: Problem, response: str) -> str | None:
        """Return the part of a sampled response that gave its answer, to train on; None if no part did."""
        return response

    def program(self, problem: Problem, response: str) -> str | None:
        """Return the program in a whole response (given lines included), or None if it contains no program."""
        return None

    @abstractmethod
    def answer(self, problem: Problem, response: str) -> ExecutionResult:
        """Parse the answer of a text response. Formats with programs run them in a sandbox instead."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what another program needs to rebuild this format, JSON-serialisable: class path and arguments."""


def plain_input(problem: Problem) -> str:
    """Return the prompt of the paper's scripts, with ``Question:`` and ``Answer reasoning:`` on separate lines."""
    return f"Question:\n{problem.question}\nAnswer reasoning:\n"

"""The interface of a CoT form: how a problem is put to the model, and how an answer is read from what it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from reft_pl.types import ExecutionResult, Problem

ChatTemplate = Callable[[list[dict[str, str]]], str]
"""Renders chat messages to text, generation prompt included (a tokenizer's ``apply_chat_template``, untokenised)."""


class CoTFormat(ABC):
    """A text form of problems and solutions. Knows nothing of token ids.

    A training text is ``input_text + target_text``, tokenised apart and joined; a sampling prompt is ``input_text`` and as
    many tokens of ``given_text`` (a prefix of every target) as cannot depend on what follows.
    """

    #: Whether responses are programs for a sandbox (``program``) or texts to read (``answer``).
    runs_programs: bool = False

    #: Whether ``input_text`` wants the tokenizer's chat template.
    uses_chat_template: bool = False

    @abstractmethod
    def input_text(self, problem: Problem, chat_template: ChatTemplate | None = None) -> str:
        """What stands before the solution."""

    def given_text(self, problem: Problem) -> str:
        """The opening of the solution that the sampling prompt already holds; empty unless the form fixes one."""
        return ""

    @abstractmethod
    def target_text(self, problem: Problem) -> str:
        """The annotated solution as the model shall write it, without EOS; starts with ``given_text``.

        Raises:
            UserError: the problem has no annotated solution, or one that is not of this form.
        """

    def solution_in(self, problem: Problem, response: str) -> str | None:
        """What of a sampled response gave its answer, for training on it; None where nothing did."""
        return response

    def program(self, problem: Problem, response: str) -> str | None:
        """The program in a whole response (given lines included), or None when there is none to run."""
        return None

    @abstractmethod
    def answer(self, problem: Problem, response: str) -> ExecutionResult:
        """Read the answer of a response that is a text. Forms with programs leave this to a sandbox."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What another program needs to rebuild this form: class name and arguments, JSON-serialisable."""

"""Call a plain function as a reward: with completions and problems, or with prompts as TRL does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reft_pl.errors import UserError
from reft_pl.formats.base import CoTFormat
from reft_pl.types import Problem, Sample

_OWN = ("completions", "problems", "prompts", "completion_ids")
"""Names of arguments that are no columns."""


class FunctionReward:
    """A function as a reward, called with keyword arguments.

    A function with the parameter ``prompts`` is called as TRL calls it: with ``prompts``, ``completions`` and
    ``completion_ids``. In a chat format, its prompts and completions are lists of messages. Any other function gets
    ``completions`` (the response texts) and ``problems``. Both get the columns of the dataset, each as a list with one value
    per sample. A function without ``**columns`` gets only what its signature names.

    Args:
        function: A function, an ``async def`` function, or an object with ``__call__``.

    Raises:
        UserError: Python cannot read the function's signature, as of some built-in ones.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 (is it async)
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise UserError(
                f"{self.name} does not show its parameters: name a function written in Python as the reward"
            ) from None
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._names = {p.name for p in named}
        self._required = [p.name for p in named if p.default is p.empty and p.name not in _OWN]
        self._like_trl = "prompts" in self._names

    def check(self, problems: Iterable[Problem]) -> None:
        """Check the columns of the training problems.

        Raises:
            UserError: a column that the function requires is in no problem, or a column has the name of another argument.
        """
        known = {name for problem in problems for name in problem.columns}
        if taken := known.intersection(_OWN):
            name = min(taken)
            raise UserError(
                f"the column {name!r} has the name of an argument of reward functions: give it another name under columns of "
                f"the data source ({{other_name: {name}}})"
            )
        if missing := [name for name in self._required if name not in known]:
            raise UserError(
                f"the reward function {self.name} needs {missing[0]!r}, but functions get completions, problems (or prompts, "
                "as in TRL) and the columns that the data source names: add it to columns of the source, or give it a default"
            )

    def __call__(self, samples: Sequence[Sample], cot_format: CoTFormat) -> Any:
        """Call the function with lists that have one element per sample, and return what it returns."""
        problems, texts = [sample.problem for sample in samples], [sample.text for sample in samples]
        arguments: dict[str, Any] = {"completions": texts, "problems": problems}
        if self._like_trl:
            arguments = self._as_trl(samples, texts, cot_format)
        names = dict.fromkeys([*self._required, *(name for problem in problems for name in problem.columns)])
        arguments = {name: [problem.columns.get(name) for problem in problems] for name in names} | arguments
        if not self._takes_all:
            arguments = {name: value for name, value in arguments.items() if name in self._names}
        return self.function(**arguments)

    @staticmethod
    def _as_trl(samples: Sequence[Sample], texts: Sequence[str], cot_format: CoTFormat) -> dict[str, Any]:
        chats = [cot_format.messages(sample.problem) for sample in samples]
        prompts: list[Any] = [
            cot_format.input_text(sample.problem) if chat is None else chat for sample, chat in zip(samples, chats, strict=True)
        ]
        completions: list[Any] = [
            text if chat is None else [{"role": "assistant", "content": text}] for text, chat in zip(texts, chats, strict=True)
        ]
        ids = [list(sample.completion.token_ids) for sample in samples]
        return {"prompts": prompts, "completions": completions, "completion_ids": ids}

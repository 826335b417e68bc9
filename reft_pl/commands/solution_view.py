"""Show a solution: as highlighted text for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from reft_pl.commands.question_solver import Solution
from reft_pl.escapes import escape, one_line
from reft_pl.formats.base import CoTFormat
from reft_pl.formats.parsing import answer_text
from reft_pl.terminal import echo
from reft_pl.types import ExecutionResult


def show(solution: Solution, cot_format: CoTFormat, *, with_question: bool) -> None:
    """Print a solution, with colours only in a terminal."""
    lines = Text()
    if with_question:
        lines.append("question: ", "bold").append(escape(solution.chosen.problem.question)).append("\n\n")
    program = _program(solution, cot_format)
    text = escape(solution.chosen.text if program is None else program).strip("\n")
    lines.append_text(Text(text) if program is None else _highlighted(text)).append("\n\n")
    lines.append("answer: ", "bold").append(_answer(solution), "bold green")
    lines.append("\nstatus: ", "bold").append(_status(solution.chosen.result))
    if len(solution.samples) > 1:
        lines.append("\nvotes:", "bold").append("".join(f"\n{count:6}  {what}" for count, what in _votes(solution)))
    _print(lines.append("\n" if with_question else ""))


def as_json(solution: Solution, cot_format: CoTFormat) -> str:
    """Format a solution as one line of ASCII JSON.

    Keys: ``question``; ``answer`` (null if none), ``status``, ``detail``, ``program`` (null if none was run) and ``response``
    of the chosen sample; ``samples``, the number of samples; ``votes``, a list of ``answer``, ``count`` and, with a reranker,
    ``score``, the sum of its scores; ``statuses``, counts over all samples.
    """
    chosen, answers = solution.chosen, solution.answers
    record = {
        "question": chosen.problem.question,
        "answer": answers[solution.samples.index(chosen)],
        "status": chosen.result.status.value,
        "detail": chosen.result.detail,
        "program": _program(solution, cot_format),
        "response": chosen.text,
        "samples": len(solution.samples),
        "votes": [{"answer": answers[group[0]], "count": len(group), **_score(solution, group)} for group in solution.votes],
        "statuses": Counter(sample.result.status.value for sample in solution.samples),
    }
    return json.dumps(record)


def _program(solution: Solution, cot_format: CoTFormat) -> str | None:
    chosen = solution.chosen
    return cot_format.program(chosen.problem, chosen.text) if cot_format.runs_programs else None


def _score(solution: Solution, group: Sequence[int]) -> dict[str, float]:
    """Return the score of an answer; empty without a reranker."""
    return {} if solution.scores is None else {"score": solution.score(group)}


def _answer(solution: Solution) -> str:
    groups, answers = solution.votes, solution.answers
    if not groups:
        return "none"
    answer = _shown(answers[groups[0][0]])
    count = f" ({len(groups[0])} of {len(answers)} samples)" if len(answers) > 1 else ""
    return answer + count


def _shown(answer: float | str | None) -> str:
    return "none" if answer is None else one_line(answer_text(float(answer) if isinstance(answer, int) else answer))


def _status(result: ExecutionResult) -> str:
    detail = one_line(result.detail)
    return f"{result.status.value} ({detail})" if detail else result.status.value


def _votes(solution: Solution) -> list[tuple[int, str]]:
    """Return every answer with its count, then the statuses of samples without an answer."""
    answers = solution.answers
    scores = ["".join(f"  (score {score:.3f})" for score in _score(solution, group).values()) for group in solution.votes]
    counted = [(len(group), _shown(answers[group[0]]) + score) for group, score in zip(solution.votes, scores, strict=True)]
    failed = Counter(
        sample.result.status.value for sample, answer in zip(solution.samples, answers, strict=True) if answer is None
    )
    return counted + [(count, f"no answer: {status}") for status, count in failed.most_common()]


def _highlighted(program: str) -> Text:
    # Not the Syntax object itself: it pads every line to the terminal's width.
    text = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(program)
    text.rstrip()
    return text


def _print(text: Text) -> None:
    if sys.stdout.isatty():
        Console().print(text, soft_wrap=True)
    else:
        echo(text.plain, lines=True)

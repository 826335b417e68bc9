"""The paper's plain prompt, shared by the formats without a chat template."""

from __future__ import annotations

from reft_pl.types import Problem


def plain_input(problem: Problem) -> str:
    """Return the prompt of the paper's scripts, with ``Question:`` and ``Answer reasoning:`` on separate lines."""
    return f"Question:\n{problem.question}\nAnswer reasoning:\n"

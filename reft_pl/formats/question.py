"""The paper's plain prompt, common to the forms that use no chat template."""

from __future__ import annotations

from reft_pl.types import Problem


def plain_input(problem: Problem) -> str:
    """``Question:`` and ``Answer reasoning:`` on lines of their own, as in the paper's scripts."""
    return f"Question:\n{problem.question}\nAnswer reasoning:\n"

"""Time the phases of an iteration: rollout, execute, score, update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal["rollout", "execute", "score", "update"]


class PhaseTimer:
    """Accumulates wall time and tokens per phase; subclasses can notify callbacks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens: dict[str, int] = {}

    @contextmanager
    def phase(self, phase: Phase, total: int) -> Iterator[PhaseProgress]:
        """Time the body as a phase of ``total`` sequences; the body reports progress through the yielded object."""
        self.on_start(phase, total)
        start = perf_counter()
        try:
            yield PhaseProgress(self, phase)
        finally:
            seconds = perf_counter() - start
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
            self.on_end(phase, seconds)

    def take(self) -> dict[str, float]:
        """Return the statistics since the last call by TensorBoard name: ``seconds/*`` and ``tokens_per_second/*``."""
        statistics = {f"seconds/{phase}": seconds for phase, seconds in self.seconds.items()}
        for phase, tokens in self.tokens.items():
            statistics[f"tokens_per_second/{phase}"] = tokens / max(self.seconds[phase], 1e-9)
        self.seconds, self.tokens = {}, {}
        return statistics

    def on_start(self, phase: Phase, total: int) -> None:
        """Handle the start of a phase of ``total`` sequences."""

    def on_progress(self, phase: Phase, done: int) -> None:
        """Handle progress: ``done`` sequences of the phase are finished."""

    def on_end(self, phase: Phase, seconds: float) -> None:
        """Handle the end of a phase after ``seconds`` of wall time."""


class PhaseProgress:
    """Receives the progress of a phase from its body."""

    def __init__(self, timer: PhaseTimer, phase: Phase) -> None:
        self._timer = timer
        self._phase: Phase = phase
        self._done = 0

    def advance(self, sequences: int, tokens: int = 0) -> None:
        """Report ``sequences`` more finished sequences with ``tokens`` non-padding tokens in total."""
        self._done += sequences
        if tokens:
            self._timer.tokens[self._phase] = self._timer.tokens.get(self._phase, 0) + tokens
        self._timer.on_progress(self._phase, self._done)

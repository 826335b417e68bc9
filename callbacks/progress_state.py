"""State of a progress bar, independent of how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter
from typing import SupportsFloat

TRAINING = {
    "train/loss": "loss {:.4f}",
    "rollout/reward": "reward {:.3f}",
    "rollout/accuracy": "accuracy {:.1%}",
    "rollout/kl": "KL {:.3f}",
}
VALIDATION, TEST = "val/top1", "test/top1/"
"""The displayed metrics, by TensorBoard name."""


@dataclass
class Stage:
    """Progress of training, validation or test.

    ``fraction`` is the completed share, None if the end is unknown; ``first_fraction`` is the share completed before this
    process began (in a resumed run).
    """

    name: str
    position: str = ""
    fraction: float | None = None
    first_fraction: float = 0.0
    started: float = field(default_factory=perf_counter)

    def elapsed(self) -> float:
        """Seconds since this process began the stage."""
        return perf_counter() - self.started

    def seconds_left(self) -> float | None:
        """Estimate the time left from the mean pace so far, including validations; None before there is an estimate."""
        if self.fraction is None or self.fraction <= self.first_fraction:
            return None
        return self.elapsed() * (1 - self.fraction) / (self.fraction - self.first_fraction)


@dataclass
class PhaseState:
    """One phase of the current iteration: ``done`` of ``total`` sequences; ``seconds`` is set when it ends."""

    name: str
    total: int
    done: int = 0
    seconds: float | None = None
    started: float = field(default_factory=perf_counter)

    def elapsed(self) -> float:
        """Seconds since the phase began, or its duration once it has ended."""
        return perf_counter() - self.started if self.seconds is None else self.seconds

    def rate(self) -> float:
        """Sequences per second."""
        return self.done / max(self.elapsed(), 1e-9)


@dataclass
class ProgressState:
    """All displayed state: the run, an evaluation inside it, the phases of the iteration, the latest figures."""

    run: Stage | None = None
    evaluation: Stage | None = None
    phases: dict[str, PhaseState] = field(default_factory=dict)
    current_phase: PhaseState | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def read_figures(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the latest values of the displayed metrics."""
        for name, value in metrics.items():
            if name in TRAINING or name == VALIDATION or name.startswith(TEST):
                self.figures[name] = float(value)

    def training_text(self) -> str:
        """Format the training figures: ``reward 0.412  accuracy 37.5%``."""
        return "  ".join(form.format(self.figures[name]) for name, form in TRAINING.items() if name in self.figures)

    def evaluation_text(self) -> str:
        """Format the evaluation figures: ``val top-1 62.5%``."""
        named = {name: name.removeprefix(TEST) for name in self.figures if name.startswith(TEST)}
        named |= {VALIDATION: "val"} if VALIDATION in self.figures else {}
        return "  ".join(f"{label} top-1 {self.figures[name]:.1%}" for name, label in named.items())


def clock(seconds: float | None) -> str:
    """Format seconds as ``0:01:23``, or dashes if None."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))


def rate_text(phase: PhaseState) -> str:
    """Format a rate: ``12.3``, or ``2,400`` if it is at least 100."""
    rate = phase.rate()
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"

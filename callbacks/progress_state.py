"""What a progress bar knows of a run, apart from how it is drawn."""

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
"""What people watch, by TensorBoard name."""


@dataclass
class Stage:
    """One of training, validation, test: how far it is, and how long it will go on.

    ``fraction`` is the share that is done, None where the end is not known; ``first_fraction`` what was done before this
    process began (a resumed run).
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
        """Estimate from the mean pace so far, validations in between included; None before there is one."""
        if self.fraction is None or self.fraction <= self.first_fraction:
            return None
        return self.elapsed() * (1 - self.fraction) / (self.fraction - self.first_fraction)


@dataclass
class PhaseState:
    """One phase of the current iteration: ``done`` of ``total`` sequences; ``seconds`` once it has ended."""

    name: str
    total: int
    done: int = 0
    seconds: float | None = None
    started: float = field(default_factory=perf_counter)

    def elapsed(self) -> float:
        """Seconds that the phase took, or has taken so far."""
        return perf_counter() - self.started if self.seconds is None else self.seconds

    def rate(self) -> float:
        """Sequences a second."""
        return self.done / max(self.elapsed(), 1e-9)


@dataclass
class ProgressState:
    """Everything there is to draw: the run, an evaluation inside it, the phases of the iteration, the latest figures."""

    run: Stage | None = None
    evaluation: Stage | None = None
    phases: dict[str, PhaseState] = field(default_factory=dict)
    current_phase: PhaseState | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def read_figures(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the latest of what people watch."""
        for name, value in metrics.items():
            if name in TRAINING or name == VALIDATION or name.startswith(TEST):
                self.figures[name] = float(value)

    def training_text(self) -> str:
        """``reward 0.412  accuracy 37.5%``."""
        return "  ".join(form.format(self.figures[name]) for name, form in TRAINING.items() if name in self.figures)

    def evaluation_text(self) -> str:
        """``val top-1 62.5%``."""
        named = {name: name.removeprefix(TEST) for name in self.figures if name.startswith(TEST)}
        named |= {VALIDATION: "val"} if VALIDATION in self.figures else {}
        return "  ".join(f"{label} top-1 {self.figures[name]:.1%}" for name, label in named.items())


def clock(seconds: float | None) -> str:
    """``0:01:23``, or dashes where it is not known."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))


def rate_text(phase: PhaseState) -> str:
    """``12.3``, or ``2,400`` where a decimal says nothing."""
    rate = phase.rate()
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"

"""Two progress views: live bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

from time import perf_counter

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reft_pl.escapes import one_line

from .progress_state import PhaseState, ProgressState, Stage, clock, rate_text


class ProgressView:
    """Base view of a ``ProgressState`` that the callback updates. Every event defaults to a no-op."""

    def __init__(self, state: ProgressState, console: Console) -> None:
        self.state = state
        self.console = console

    def start(self) -> None:
        """Start or resume showing."""

    def stop(self) -> None:
        """Stop showing; may be called more than once."""

    def phase_end(self, phase: PhaseState) -> None:
        """Handle the end of a phase."""

    def batch_end(self) -> None:
        """Handle the end of a training batch."""

    def evaluation_end(self, stage: Stage) -> None:
        """Handle the end of a validation or test, once its figures are known."""


class TerminalView(ProgressView):
    """Live rows: the run, the evaluation inside it, the phase, the figures."""

    def __init__(self, state: ProgressState, console: Console, refresh_seconds: float) -> None:
        super().__init__(state, console)
        self._refreshes = 1 / refresh_seconds
        self._live: Live | None = None

    def start(self) -> None:
        """Start drawing."""
        if self._live is None:
            self._live = Live(console=self.console, refresh_per_second=self._refreshes, get_renderable=self.render)
            self._live.start()

    def stop(self) -> None:
        """Stop drawing and leave the last state on screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """Build the current display."""
        bars = Table.grid(padding=(0, 2), expand=False)
        bars.add_column(min_width=10)
        bars.add_column(width=24)
        bars.add_column()
        bars.add_column()
        for stage in (self.state.run, self.state.evaluation):
            if stage is not None:
                time = f"{clock(stage.elapsed())} gone, {clock(stage.seconds_left())} left"
                # A stage of unknown length gets a pulsing bar.
                bars.add_row(
                    Text(one_line(stage.name)), bar(stage.fraction), Text(one_line(stage.position)), Text(time, style="cyan")
                )
        phase = self.state.current_phase
        if phase is not None:
            count = f"{phase.done:,}/{phase.total:,}"
            fraction = phase.done / phase.total if phase.total else 1.0
            bars.add_row(
                Text(f"  {one_line(phase.name)}", style="bold"),
                bar(fraction),
                count,
                Text(f"{rate_text(phase)} sequences/s", style="green"),
            )
        figures = (self.state.training_text(), self.state.evaluation_text())
        return Group(bars, Text(one_line("  ".join(filter(None, figures))), style="yellow"))


class LineView(ProgressView):
    """Plain lines for log files: per iteration and per long phase (limited by ``line_seconds``), and per evaluation."""

    def __init__(self, state: ProgressState, console: Console, line_seconds: float) -> None:
        super().__init__(state, console)
        self._line_seconds = line_seconds
        self._last_batch_line = float("-inf")

    def phase_end(self, phase: PhaseState) -> None:
        """Print a line if the phase took at least ``line_seconds``."""
        if phase.elapsed() >= self._line_seconds:
            stage = self.state.evaluation or self.state.run
            name = f"{stage.name} " if stage else ""
            rate = f"{phase.done:,} sequences in {phase.elapsed():.1f} s ({rate_text(phase)}/s)"
            self._print(f"{name}{phase.name}: {rate}")

    def batch_end(self) -> None:
        """Print one line for the iteration, with the seconds of its phases."""
        run = self.state.run
        is_last = run is not None and run.fraction is not None and run.fraction >= 1
        if run is None or not (is_last or perf_counter() - self._last_batch_line >= self._line_seconds):
            return
        self._last_batch_line = perf_counter()
        phases = "  ".join(
            f"{phase.name} {phase.elapsed():.2f} s ({rate_text(phase)}/s)" for phase in self.state.phases.values()
        )
        parts = (f"{run.name} {run.position}", self.state.training_text(), phases, f"{clock(run.seconds_left())} left")
        self._print(" | ".join(part for part in parts if part))

    def evaluation_end(self, stage: Stage) -> None:
        """Print one line with the figures."""
        self._print(f"{stage.name} done in {stage.elapsed():.1f} s | {self.state.evaluation_text()}".rstrip(" |"))

    def _print(self, line: str) -> None:
        self.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def bar(fraction: float | None) -> ProgressBar:
    """Return a bar of 24 columns; it pulses if the fraction is unknown."""
    return ProgressBar(total=1.0, completed=min(fraction or 0.0, 1.0), width=24, pulse=fraction is None)

"""PhaseProgressBar: bars on a terminal, lines elsewhere, and the estimate of the remaining time."""

import io
import re
from typing import Any

import pytest
from reft_pl_callbacks import PhaseProgressBar
from reft_pl_callbacks.phase_progress_bar import fit_fraction
from reft_pl_callbacks.progress_state import Stage, clock
from rich.console import Console


def lines_of(bar: PhaseProgressBar) -> list[str]:
    assert bar.console is not None
    assert isinstance(bar.console.file, io.StringIO)
    return bar.console.file.getvalue().splitlines()


def plain_bar(line_seconds: float) -> PhaseProgressBar:
    bar = PhaseProgressBar(line_seconds=line_seconds, refresh_seconds=0.01)
    bar.console = Console(file=io.StringIO(), force_terminal=False, width=80)
    return bar


def test_lines_without_a_terminal(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    bar = plain_bar(line_seconds=0.0)
    make_trainer(bar, enable_progress_bar=True).fit(tiny_module(), loader, loader)
    iterations = [line for line in lines_of(bar) if line.startswith("training epoch")]
    assert len(iterations) == 8
    first, last = iterations[0], iterations[-1]
    assert first.startswith("training epoch 1/2 batch 1/4 | reward 0.250  accuracy 37.5%  KL 0.000 | rollout 0.00 s (")
    for phase in ("rollout", "execute", "score", "update"):
        assert f"{phase} 0.00 s (" in first
    assert last.startswith("training epoch 2/2 batch 4/4 | reward 0.320")
    assert last.endswith("| 0:00:00 left")
    assert sum(line.startswith("validation done in") and line.endswith("s | val top-1 62.5%") for line in lines_of(bar)) == 2


def test_quick_iterations_do_not_flood_a_log_file(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    bar = plain_bar(line_seconds=60.0)
    make_trainer(bar, enable_progress_bar=True).fit(tiny_module(), loader)
    assert [line.split(" |")[0] for line in lines_of(bar)] == ["training epoch 1/2 batch 1/4", "training epoch 2/2 batch 4/4"]


def test_lines_during_a_test(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    bar = plain_bar(line_seconds=60.0)
    make_trainer(bar, enable_progress_bar=True).test(tiny_module(), loader, verbose=False)
    (line,) = lines_of(bar)
    assert line.startswith("test done in 0.")
    assert line.endswith("| stories top-1 50.0%")


def picture(bar: PhaseProgressBar) -> str:
    """Return the text that the screen shows now."""
    console = Console(file=io.StringIO(), force_terminal=False, width=110)
    console.print(bar.view.render())  # type: ignore[attr-defined]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bars_in_a_terminal(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    pictures: dict[tuple[int, str], str] = {}
    bar = PhaseProgressBar()
    bar.console = Console(file=io.StringIO(), force_terminal=True, width=110, record=True)
    module = tiny_module(sequences=64, at_phase=lambda step, phase: pictures.setdefault((step, phase), picture(bar)))  # type: ignore[func-returns-value]
    make_trainer(bar, enable_progress_bar=True).fit(module, loader, loader)
    run, phase, figures = pictures[5, "score"].splitlines()
    assert run.split()[0] == "training"
    assert "epoch 2/2 batch 2/4" in run
    assert re.search(r"0:00:\d\d gone, 0:00:\d\d left", run)
    assert phase.split()[0] == "score"
    assert "32/64" in phase
    assert "sequences/s" in phase
    assert figures.startswith("reward 0.290  accuracy 37.5%  KL 0.000  val top-1 62.5%")
    inside_validation = pictures[-1, "rollout"].splitlines()
    assert [line.split()[0] for line in inside_validation[:3]] == ["training", "validation", "rollout"]
    assert "epoch 2/2 batch 4/4" in bar.console.export_text()  # the last picture stays


def test_the_terminal_is_restored_after_an_error(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    def fail(step: int, phase: str) -> None:
        raise SystemError("out of memory")

    bar = PhaseProgressBar()
    bar.console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(SystemError):
        make_trainer(bar, enable_progress_bar=True).fit(tiny_module(at_phase=fail), loader)
    assert bar.console.file.getvalue().endswith("\x1b[?25h")  # type: ignore[attr-defined] # the cursor is shown again


def test_a_disabled_bar_is_silent(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    bar = plain_bar(line_seconds=0.0)
    bar.disable()
    make_trainer(bar, enable_progress_bar=True).fit(tiny_module(), loader, loader)
    assert lines_of(bar) == []


def test_time_left_ignores_work_before_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed at one half, three quarters after 10 seconds: a quarter in 10 s, so another 10 s."""
    stage = Stage("training", fraction=0.5, first_fraction=0.5, started=100.0)
    monkeypatch.setattr("reft_pl_callbacks.progress_state.perf_counter", lambda: 110.0)
    assert stage.seconds_left() is None
    stage.fraction = 0.75
    assert stage.seconds_left() == pytest.approx(10)
    assert clock(stage.seconds_left()) == "0:00:10"
    assert clock(None) == "-:--:--"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"max_epochs": 2}, 0.5), ({"max_epochs": -1, "max_steps": 8}, 0.5), ({"max_epochs": 4, "max_steps": 5}, 0.8)],
)
def test_fraction_by_epochs_or_steps(
    make_trainer: Any, tiny_module: Any, loader: Any, limits: dict[str, int], expected: float
) -> None:
    seen: list[float | None] = []
    module = tiny_module()
    module.on_train_epoch_end = lambda: seen.append(fit_fraction(module.trainer))
    make_trainer(**limits).fit(module, loader)
    assert seen[0] == pytest.approx(expected)

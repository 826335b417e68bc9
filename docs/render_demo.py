"""Draw the README's picture of the demo from its run folders: `python docs/render_demo.py runs/sft runs/ppo`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reft_pl.evaluation.report.charts import run_colour
from reft_pl.evaluation.report.runs import Run, read_runs
from reft_pl.evaluation.report.table import Table, tables

NAMES = {"sft": "SFT warm-up", "ppo": "ReFT"}
"""What the demo's runs are called; other runs keep their own names."""

mpl.rcParams["svg.hashsalt"] = "reft-pl"  # the same runs make the same file
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.family"] = "sans-serif"


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours on a transparent background, as GitHub's two themes need them."""

    name: str
    ink: str
    faint: str


THEMES = (Theme("light", "#1f2328", "#d1d9e0"), Theme("dark", "#f0f6fc", "#3d444d"))


def draw(runs: Sequence[Run], theme: Theme, path: Path) -> None:
    """Draw both panels in one theme."""
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    curves, bars = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
    draw_curves(curves, runs, theme)
    draw_tables(bars, tables(runs, rankings=[]), theme)
    for axes in (curves, bars):
        axes.tick_params(colors=theme.ink, length=0)
        axes.spines[:].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def draw_curves(axes: Axes, runs: Sequence[Run], theme: Theme) -> None:
    """Draw the accuracy of the last run over its rollouts: validation, greedy, and the samples that it learns from."""
    run, colour = runs[-1], run_colour(len(runs) - 1)
    for tag, label, style in (("val/top1", "validation, greedy", "o-"), ("rollout/accuracy", "training samples", "-")):
        curve = run.curves[tag]
        axes.plot(
            curve.batches, curve.values, style, color=colour, alpha=1.0 if "o" in style else 0.45, label=label, markersize=4
        )
    axes.set_title(f"{NAMES.get(run.name, run.name)}: accuracy over rollouts", loc="left", fontsize=11, color=theme.ink)
    axes.set_xlabel("rollouts", color=theme.ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="y", color=theme.faint, linewidth=0.6)
    axes.legend(frameon=False, labelcolor=theme.ink, loc="lower right")


def draw_tables(axes: Axes, found: Sequence[Table], theme: Theme) -> None:
    """Draw Top-1 of every run on every test set, as a bar with its 95% interval and its figure."""
    order = [row.run for row in found[0].rows]
    places, names, top = [], [], 0.0
    for group, table in enumerate(found):
        for row in (row for row in table.rows if "Top-1" in row.figures):
            share, y = row.figures["Top-1"], len(places) + 0.6 * group
            axes.barh(y, share.mean, height=0.62, color=run_colour(order.index(row.run)))
            axes.plot((share.low, share.high), (y, y), color=theme.ink, linewidth=1.2)
            axes.text(share.high + 0.015, y, str(share), va="center", color=theme.ink, fontsize=9)
            places.append(y)
            names.append(f"{NAMES.get(row.run, row.run)}, {table.name}")
            top = max(top, share.high)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.75 * top + 0.05)
    axes.set_xticks([])
    axes.set_title("Top-1 on test questions (95% intervals)", loc="left", fontsize=11, color=theme.ink)


def main() -> None:
    """Write one file a theme."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; the last one's curves are drawn")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images", help="folder for the pictures")
    options = parser.parse_args()
    runs = read_runs(options.runs)
    for theme in THEMES:
        draw(runs, theme, options.output / f"demo-{theme.name}.svg")


if __name__ == "__main__":
    main()

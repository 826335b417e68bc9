"""What all charts share: their form, their colours, text that is nothing but text."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reft_pl.escapes import one_line

Scale = Literal["share", "linear", "log"]

RUN_COLOURS = ("#3f7fbf", "#c8642b", "#2f9470", "#a561a8", "#a07d1e", "#3d93a8", "#b5566b", "#7c7f8a")
"""Each stands off from white and from near-black by 3:1 at least."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A title, and plotly's ``data`` and ``layout`` as plain JSON; size and theme are the page's."""

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


def run_colour(index: int) -> str:
    """Of the run at this place in the report."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def label(text: str) -> str:
    """Text in a chart: plotly reads names as a small HTML, and nothing in a folder's name is markup."""
    return html.escape(one_line(text), quote=False)


def finite(values: Sequence[float]) -> list[float | None]:
    """Values with a gap where there is none: JSON knows no NaN."""
    return [value if math.isfinite(value) else None for value in values]


def axes(x_title: str, scale: Scale) -> dict[str, Any]:
    """Both axes; shares are shown as percentages."""
    y_axes: dict[Scale, dict[str, Any]] = {
        "share": {"tickformat": ".0%", "hoverformat": ".1%"},
        "linear": {"hoverformat": ".4~g"},
        "log": {"type": "log", "hoverformat": ".4~g", "dtick": 1, "tickformat": "~g"},
    }
    return {"xaxis": {"title": {"text": x_title}}, "yaxis": y_axes[scale]}

"""What all charts share: structure, colours, axes, and escaped labels."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reft_pl.escapes import one_line

Scale = Literal["share", "linear", "log"]

RUN_COLOURS = ("#3f7fbf", "#c8642b", "#2f9470", "#a561a8", "#a07d1e", "#3d93a8", "#b5566b", "#7c7f8a")
"""Each has a contrast of at least 3:1 against white and near-black."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A title, and plotly's ``data`` and ``layout`` as plain JSON; the page sets size and theme."""

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


def run_colour(index: int) -> str:
    """Return the colour of the run at this index of the report."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def label(text: str) -> str:
    """Escape text for a chart, because plotly interprets a subset of HTML in names."""
    return html.escape(one_line(text), quote=False)


def finite(values: Sequence[float]) -> list[float | None]:
    """Replace non-finite values by None, which plotly draws as a gap: JSON has no NaN."""
    return [value if math.isfinite(value) else None for value in values]


def axes(x_title: str, scale: Scale) -> dict[str, Any]:
    """Return both axes; shares are shown as percentages."""
    y_axes: dict[Scale, dict[str, Any]] = {
        "share": {"tickformat": ".0%", "hoverformat": ".1%"},
        "linear": {"hoverformat": ".4~g"},
        "log": {"type": "log", "hoverformat": ".4~g", "dtick": 1, "tickformat": "~g"},
    }
    return {"xaxis": {"title": {"text": x_title}}, "yaxis": y_axes[scale]}

"""Build one self-contained HTML page with data, style, scripts and plotting library; it uses no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from reft_pl.escapes import html_text
from reft_pl.evaluation.report.charts import Chart, run_colour
from reft_pl.evaluation.report.runs import Run
from reft_pl.evaluation.report.table import Table

SCRIPTS = ("charts.js", "highlight.js", "cards.js", "browser.js")


def page(
    runs: Sequence[Run],
    tables: Sequence[Table],
    notes: Sequence[str],
    charts: Mapping[str, Sequence[Chart]],
    browser: Mapping[str, Any],
) -> str:
    """Return the page's HTML.

    Model-written text enters only as JSON, which the scripts insert as text nodes. The content security policy lists each
    script by hash, so injected code would not run.

    Args:
        runs: In the order of their colours.
        tables: One per test set.
        notes: Sentences shown below the tables.
        charts: By the id of their section.
        browser: From ``browser_data``.
    """
    data = {
        "runs": [{"name": run.name, "stage": run.stage, "colour": run_colour(i)} for i, run in enumerate(runs)],
        "charts": {section: [asdict(chart) for chart in of_section] for section, of_section in charts.items()},
        "browser": browser,
    }
    drawn = any(charts.values())
    scripts = [*([get_plotlyjs()] if drawn else []), *map(_asset, SCRIPTS)]
    return _filled(
        _asset("page.html"),
        policy=_policy(scripts),
        style=_asset("page.css"),
        title="reft-pl: " + html_text(", ".join(run.name for run in runs)),
        tables="".join(map(_table, tables)) or "<p>None of these runs has been tested yet.</p>",
        notes="".join(f"<p>{html_text(note)}</p>" for note in notes),
        runs="".join(map(_run, runs)),
        data=script_json(data),
        scripts="".join(f"<script>{script}</script>\n" for script in scripts),
    )


def script_json(data: Any) -> str:
    """Serialise JSON for a script element: no character in it can start or end HTML markup."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII only, so U+2028 and U+2029 are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # Plotly uses inline styles, and creates images for download.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (files("reft_pl.evaluation.report") / "assets" / name).read_text(encoding="utf-8")


def _filled(template: str, **parts: str) -> str:
    """Replace ``{{name}}`` in one pass, so that inserted text is not expanded again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{html_text(heading)}</th>' for heading in ("run", *table.columns.values()))
    rows = "".join(
        f'<tr><th scope="row">{html_text(row.run)}{_small(row.remark)}</th>'
        + "".join(f"<td>{_cell(table.cell(row, column))}</td>" for column in table.columns)
        + "</tr>"
        for row in table.rows
    )
    caption = html_text(table.title)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _cell(text: str) -> str:
    """Format the figure large and the rest small."""
    figure, _, rest = text.partition(" ")
    return html_text(figure) + _small(rest)


def _small(text: str) -> str:
    return f" <small>{html_text(text)}</small>" if text else ""


def _run(run: Run) -> str:
    fit = run.results.get("fit", {})
    cells = [
        html_text(run.stage or "-"),
        *(f"{fit[key]:,}" if key in fit else "-" for key in ("batches", "optimizer_steps")),
        html_text(_best(fit.get("best") or {})),
        f"<code>{html_text(str(run.folder))}</code>",
    ]
    return f'<tr><th scope="row">{html_text(run.name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _best(best: Mapping[str, Any]) -> str:
    """Format the metric that chose the best checkpoint, and its batch."""
    figures = [f"{name} {value:.3g}" for name, value in best.items() if name != "batch"]
    return f"{', '.join(figures)} after {best['batch']:,} batches" if figures and "batch" in best else "-"

"""One HTML page with everything in it: data, style, scripts, plotting library. It asks no network for anything."""

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
    """The page's text.

    What a model wrote goes into it as JSON alone, which the scripts put into the document as text. The content security policy
    names each script by its hash, so that nothing else would run even if it got in.

    Args:
        runs: In the order of their colours.
        tables: One a test set.
        notes: Sentences to stand under them.
        charts: By the id of the section that they stand in.
        browser: As ``browser_data`` makes it.
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
    """JSON that may stand in a script element whatever is in it: no character of it can end or begin anything in HTML."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII alone, so U+2028 and U+2029 are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # Plotly styles what it draws in place, and makes images of it for saving.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (files("reft_pl.evaluation.report") / "assets" / name).read_text(encoding="utf-8")


def _filled(template: str, **parts: str) -> str:
    """The template with ``{{name}}`` replaced in one pass: what is put in is not looked at again."""
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
    """The figure large, what stands after it small."""
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
    """The figure by which the best checkpoint was chosen, and when that was."""
    figures = [f"{name} {value:.3g}" for name, value in best.items() if name != "batch"]
    return f"{', '.join(figures)} after {best['batch']:,} batches" if figures and "batch" in best else "-"

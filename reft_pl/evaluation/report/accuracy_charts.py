"""Charts of accuracy against k, the number of samples chosen from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reft_pl.evaluation.report.charts import Chart, axes, label, run_colour
from reft_pl.evaluation.report.rankings import Ranking
from reft_pl.evaluation.report.runs import Run
from reft_pl.evaluation.report.table import TRAINING_SETS

KINDS = {"voting": "voting@k", "rerank": "rerank@k", "pass": "pass@k, the upper bound"}


def accuracy_against_k(runs: Sequence[Run], rankings: Sequence[Ranking]) -> list[Chart]:
    """Return charts of voting@k, rerank@k and pass@k for each test set, on one scale, with 95% intervals."""
    by_set: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for set_name, kind, line in _lines(runs, rankings):
        by_set.setdefault(set_name, {}).setdefault(kind, []).append(line)
    charts = []
    for set_name, by_kind in by_set.items():
        layout = _scale([line for lines in by_kind.values() for line in lines])
        charts += [Chart(f"{set_name}: {KINDS[kind]}", by_kind[kind], layout) for kind in KINDS if kind in by_kind]
    return charts


def _lines(runs: Sequence[Run], rankings: Sequence[Ranking]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every line with its set and kind."""
    for index, run in enumerate(runs):
        found: list[tuple[str, str, Sequence[str], Mapping[str, Any]]] = [
            (set_name, run.name, ("voting", "pass"), section) for set_name, section in run.results.get("samples", {}).items()
        ]
        for ranking in rankings:
            if (ranking.policy or ranking.reranker) is run:
                known = ("rerank",) if ranking.policy else tuple(KINDS)
                found.append((ranking.set_name, _name(ranking, rankings), known, ranking.figures))
        for set_name, name, kinds, section in found:
            for kind in kinds:
                points = sorted(
                    (int(key.split("@")[1]), figure) for key, figure in section.items() if key.startswith(f"{kind}@")
                )
                if points and set_name not in TRAINING_SETS:
                    yield set_name, kind, _line(name, index, points)


def _name(ranking: Ranking, rankings: Sequence[Ranking]) -> str:
    """Return the policy's name, plus the reranker's if several ranked the same samples."""
    if ranking.policy is None:
        return ranking.reranker.name
    rivals = [r for r in rankings if r.policy is ranking.policy and r.set_name == ranking.set_name]
    return ranking.policy.name if len(rivals) == 1 else f"{ranking.policy.name} by {ranking.reranker.name}"


def _line(name: str, index: int, points: Sequence[tuple[int, Sequence[float]]]) -> dict[str, Any]:
    return {
        "name": label(name),
        "x": [k for k, _ in points],
        "y": [mean for _, (mean, _, _) in points],
        "error_y": {
            "array": [high - mean for _, (mean, _, high) in points],
            "arrayminus": [mean - low for _, (mean, low, _) in points],
            "thickness": 1,
            "width": 0,
        },
        "mode": "lines+markers",
        "line": {"color": run_colour(index), "width": 1.8},
    }


def _scale(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return axes that fit all lines, so that adjacent charts are comparable; k doubles from tick to tick."""
    layout = axes("k, samples a question", "share")
    ks = sorted({k for line in lines for k in line["x"]})
    layout["xaxis"] |= {"type": "log", "tickvals": ks, "ticktext": [str(k) for k in ks]}
    low = min(y - below for line in lines for y, below in zip(line["y"], line["error_y"]["arrayminus"], strict=True))
    high = max(y + above for line in lines for y, above in zip(line["y"], line["error_y"]["array"], strict=True))
    margin = 0.05 * (high - low)
    layout["yaxis"]["range"] = [max(0.0, low - margin), min(1.0, high + margin)]
    return layout

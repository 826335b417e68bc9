"""Match rerankers to the runs that wrote the samples they ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from reft_pl.evaluation.report.runs import Run


@dataclass(frozen=True, slots=True)
class Ranking:
    """A reranker's results on one set of samples.

    ``policy`` is the run that holds the samples, None if it is not in the report; ``set_name`` is then the reranker's own.
    ``figures`` is the set's entry in the reranker's ``results.json``, ``scores`` the file with the scores of all samples.
    """

    reranker: Run
    policy: Run | None
    set_name: str
    figures: dict[str, Any]
    scores: Path


def find_rankings(runs: Sequence[Run]) -> tuple[list[Ranking], list[str]]:
    """Return the rankings of all runs, and a sentence for each that is left out.

    A ranking is left out if its policy was trained further since it sampled, or if its samples were replaced: pass@n, the
    upper bound, is no longer the same.
    """
    files = {path.resolve(): (run, path) for run in runs for path in (*run.sample_files, *run.former_samples)}
    rankings, left_out = [], []
    for run in runs:
        for name, figures in run.results.get("rerank", {}).items():
            policy, file = _ranked_file(run, figures["samples"], files) or (None, Path(name))
            set_name = file.stem if policy else name
            if policy and file in policy.former_samples:
                left_out.append(
                    f"{run.name} ranked samples that {policy.name} wrote before it was trained further: "
                    f"its figures are left out until `reft-pl test` ranks new ones."
                )
            elif policy and _stale(figures, policy.results.get("samples", {}).get(set_name, {})):
                left_out.append(
                    f"{run.name} ranked other samples than {figures['samples']} holds now: "
                    f"its figures are left out until `reft-pl test` ranks these."
                )
            else:
                rankings.append(Ranking(run, policy, set_name, figures, run.folder / "scores" / f"{name}.jsonl"))
    return rankings, left_out


def _ranked_file(reranker: Run, path: str, files: dict[Path, tuple[Run, Path]]) -> tuple[Run, Path] | None:
    """Return the run and sample file at ``path``, relative to the working folder or to a parent of the reranker's run."""
    for base in (Path(), *reranker.folder.resolve().parents):
        if found := files.get((base / path).resolve()):
            return found
    return None


def _stale(ranked: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether two summaries of one sample file describe different samples."""
    if not now:
        return False
    n = now["n"]
    same_size = (ranked["questions"], ranked["n"]) == (now["questions"], n)
    names = (f"pass@{n}", f"voting@{n}")
    return not (same_size and all(isclose(ranked[name][0], now[name][0], abs_tol=1e-9) for name in names))

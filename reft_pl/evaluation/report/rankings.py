"""Which reranker ranked whose samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from reft_pl.evaluation.report.runs import Run


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a reranker made of a set of samples.

    ``policy`` is the run that holds the samples, None where it is not in the report; ``set_name`` is then the reranker's own.
    ``figures`` is the set's entry in the reranker's ``results.json``.
    """

    reranker: Run
    policy: Run | None
    set_name: str
    figures: dict[str, Any]


def find_rankings(runs: Sequence[Run]) -> tuple[list[Ranking], list[str]]:
    """The rankings of all runs, and a sentence for each that is left out.

    One is left out where its policy has been trained since it sampled, or its samples have been made anew: what there is to
    choose from (pass@n) is not what it was.
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
                    f"{run.name} ranked other samples than those that {figures['samples']} holds now: "
                    f"its figures are left out until `reft-pl test` ranks these."
                )
            else:
                rankings.append(Ranking(run, policy, set_name, figures))
    return rankings, left_out


def _ranked_file(reranker: Run, path: str, files: dict[Path, tuple[Run, Path]]) -> tuple[Run, Path] | None:
    """Whose file ``path`` is. It is relative to the folder in which the reranker was tested: this one, or one above its run."""
    for base in (Path(), *reranker.folder.resolve().parents):
        if found := files.get((base / path).resolve()):
            return found
    return None


def _stale(ranked: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two summaries that should be of one sample file tell of different samples."""
    if not now:
        return False
    n = now["n"]
    same_size = (ranked["questions"], ranked["n"]) == (now["questions"], n)
    names = (f"pass@{n}", f"voting@{n}")
    return not (same_size and all(isclose(ranked[name][0], now[name][0], abs_tol=1e-9) for name in names))

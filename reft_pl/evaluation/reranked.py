"""Copy a reranker's results to the runs that wrote the samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reft_pl.evaluation.files import read_results, update_results
from reft_pl.evaluation.model_card import write_card


def copy_to_sampled_runs(reranker_run: Path, names: Iterable[str]) -> None:
    """Write a tested reranker's figures to the runs that wrote the samples, and refresh their cards.

    The figures are rerank@k, weighted@k and tie_break@k. A run trained further since it sampled has no
    ``samples`` section and is skipped. If several rerankers ranked the same samples, the last one tested wins.

    Args:
        reranker_run: Run folder of the reranker.
        names: The sets just tested, so their sample files are current.
    """
    entries = read_results(reranker_run).get("rerank", {})
    for entry in (entries[name] for name in names):
        file = Path(entry["samples"])
        run, name = file.parent.parent, file.stem
        sampled = read_results(run).get("samples", {}).get(name) if file.parent.name == "samples" else None
        if sampled is not None:
            figures = {key: value for key, value in entry.items() if key.startswith(("rerank@", "weighted@", "tie_break@"))}
            about = {"reranker": str(reranker_run), "questions": entry["questions"], "weights": sampled.get("weights")}
            update_results(run, "reranked", {name: {**about, **figures}})
            write_card(run)

"""What a reranker made of other runs' samples, told to those runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reft_pl.evaluation.files import read_results, update_results
from reft_pl.evaluation.model_card import write_card


def tell_sampled_runs(reranker_run: Path, names: Iterable[str]) -> None:
    """Write rerank@k and weighted@k of a tested reranker into the runs whose samples it ranked, and refresh their cards.

    A run that was trained on since it sampled has no ``samples`` section any more, and is told nothing. Of several rerankers
    on the same samples the one that was tested last stands.

    Args:
        reranker_run: Where the figures are.
        names: The sets that have just been tested, whose sample files are therefore the present ones.
    """
    entries = read_results(reranker_run).get("rerank", {})
    for entry in (entries[name] for name in names):
        file = Path(entry["samples"])
        run, name = file.parent.parent, file.stem
        sampled = read_results(run).get("samples", {}).get(name) if file.parent.name == "samples" else None
        if sampled is not None:
            figures = {key: value for key, value in entry.items() if key.startswith(("rerank@", "weighted@"))}
            about = {"reranker": str(reranker_run), "questions": entry["questions"], "weights": sampled.get("weights")}
            update_results(run, "reranked", {name: {**about, **figures}})
            write_card(run)

"""The model card of ``hf/``: what the model is, how it came about, and what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from reft_pl.escapes import printable
from reft_pl.evaluation.card_metadata import metadata
from reft_pl.evaluation.card_text import text
from reft_pl.evaluation.files import write_aside
from reft_pl.evaluation.run_record import read_run
from reft_pl.models.export import read_description
from reft_pl.models.lineage import CARD_FILE


def model_card(run_dir: Path, description: Mapping[str, Any] | None = None) -> ModelCard:
    """The card of a run's model, from the run's own files. What was not measured on these very weights is not in it.

    Args:
        run_dir: The run's folder, with ``config.yaml``, ``results.json`` and ``predictions/`` as far as they are there.
        description: What ``reft.json`` of the model says, or will say; None reads it from ``hf/``.

    Raises:
        UserError: ``results.json`` or ``reft.json`` is broken.
    """
    record = read_run(run_dir, read_description(run_dir / "hf") if description is None else description)
    return ModelCard(printable(f"---\n{metadata(record).to_yaml()}\n---\n\n{text(record)}"))


def write_card(run_dir: Path) -> None:
    """Bring the card in ``hf/`` up to date with what has been measured; nothing is done where there is no ``hf/``."""
    folder = run_dir / "hf"
    if folder.is_dir():
        write_aside(folder / CARD_FILE, str(model_card(run_dir)))

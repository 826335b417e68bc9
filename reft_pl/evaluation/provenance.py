"""Which figures and which samples are of the weights that a run has now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def of_weights(section: Mapping[str, Any], weights: str | None) -> dict[str, Any]:
    """The entries of a section of ``results.json`` that were measured on these weights.

    A section or an entry says by its key ``weights`` on which it was measured; without it, it is taken to be of the run's own.
    """
    if section.get("weights", weights) != weights:
        return {}
    return {
        key: entry for key, entry in section.items() if not isinstance(entry, dict) or entry.get("weights", weights) == weights
    }


def is_former(samples: Path, entry: Mapping[str, Any], weights: str) -> bool:
    """Whether other weights than these wrote a sample file of the run, as far as anything says which did.

    Nothing does of a file that another program wrote. Of one of an earlier reft-pl, whose settings do not name the weights, its
    figures do; once it is finished they are only gone when the run has been trained on.

    Args:
        samples: The file.
        entry: Its figures in ``results.json``, empty where there are none.
        weights: Those that the run has now.
    """
    path = samples.with_name(f"{samples.stem}.settings.json")
    settings: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    wrote = (settings or {}).get("weights") or entry.get("weights")
    if wrote is not None:
        return bool(wrote != weights)
    unfinished = samples.with_name(f".{samples.stem}.parts").exists()
    return settings is not None and not entry and not unfinished

"""What a model takes over from the one that it starts from, for its model card."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard

from reft_pl.errors import UserError
from reft_pl.hub import HUB_SECONDS
from reft_pl.resources import model_folder

CARD_FILE = "README.md"
INHERITED = ("license", "license_name", "license_link", "base_model")


def inherited_metadata(base: str) -> dict[str, Any]:
    """License and hub name of the base model, by their names in a model card's metadata; what nobody says is left out.

    A folder's own card tells (that of a former run inherited them in its turn), or the hub, which is asked once and briefly.

    Args:
        base: Folder or hub id.
    """
    try:
        folder = model_folder(base)
    except UserError:  # it is gone since
        return {}
    said = _hub_metadata(base) | {"base_model": base} if folder is None else _folder_metadata(folder)
    return {key: said[key] for key in INHERITED if said.get(key)}


def _folder_metadata(folder: Path) -> dict[str, Any]:
    try:
        return dict(ModelCard.load(folder / CARD_FILE, ignore_metadata_errors=True).data.to_dict())
    except Exception:  # there is none, or it is somebody else's and in whatever state: no card is not worth a failed run
        return {}


@lru_cache
def _hub_metadata(name: str) -> dict[str, Any]:
    try:
        card = HfApi().model_info(name, timeout=HUB_SECONDS).card_data
    except Exception:  # whatever the network did
        return {}
    return dict(card.to_dict()) if card else {}  # type: ignore[no-untyped-call]

"""Model card metadata that a trained model inherits from its base model."""

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
    """Return license and base model as model card metadata; unknown fields are omitted.

    For a folder they come from its card, which an earlier run may have inherited in turn. For a hub id they come from the hub,
    with one short, cached request.

    Args:
        base: Folder or hub id.
    """
    try:
        folder = model_folder(base)
    except UserError:  # the folder has been removed since
        return {}
    metadata = _hub_metadata(base) | {"base_model": base} if folder is None else _folder_metadata(folder)
    return {key: metadata[key] for key in INHERITED if metadata.get(key)}


def _folder_metadata(folder: Path) -> dict[str, Any]:
    try:
        return dict(ModelCard.load(folder / CARD_FILE, ignore_metadata_errors=True).data.to_dict())
    except Exception:  # the card may be missing or malformed: neither is worth a failed run
        return {}


@lru_cache
def _hub_metadata(name: str) -> dict[str, Any]:
    try:
        card = HfApi().model_info(name, timeout=HUB_SECONDS).card_data
    except Exception:  # any network failure
        return {}
    return dict(card.to_dict()) if card else {}  # type: ignore[no-untyped-call]

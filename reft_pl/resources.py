"""Resolve shipped resources: `configs/x.yaml` in the working folder, else in the installed package."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

from reft_pl.errors import UserError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
RUN_EXPORT = re.compile(r"(?:.*/)?runs/(?P<stage>[\w-]+)/hf/?")


def find(name: str) -> str:
    """Return ``name`` if the path exists, else the path of the shipped config of that name, else ``name`` unchanged.

    Args:
        name: A path such as ``configs/sft.yaml`` or ``configs/models/tiny_llama``; hub ids pass through.
    """
    path = Path(name)
    if not path.exists() and path.parts[:1] == ("configs",):
        shipped = files("reft_pl_configs").joinpath(*path.parts[1:])
        if shipped.is_file() or shipped.is_dir():
            return str(shipped)
    return name


def model_folder(source: str) -> Path | None:
    """Return the folder that ``source`` names, or None if it is a hub id.

    Raises:
        UserError: ``source`` is neither, for example the folder of a model or run that does not exist yet.
    """
    path = Path(find(source)).expanduser()
    if source and path.is_dir():
        return path
    run = RUN_EXPORT.fullmatch(source)
    if run:
        config = f"configs/{run['stage']}.yaml"
        how = f" (`reft-pl fit --config {config}`)" if Path(find(config)).exists() else ""
        raise UserError(f"there is no model at {source}: train the stage that it comes from first{how}")
    if source.startswith("models/"):
        raise UserError(f"there is no model at {source}: import it first (`make smollm2` makes models/smollm2-135m)")
    if not HUB_ID.fullmatch(source):
        raise UserError(f"there is no model folder at {source!r}: name an existing folder, or a hub id such as owner/model")
    return None


def cache_dir() -> Path:
    """Return ``reft-pl`` under XDG_CACHE_HOME, or under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reft-pl"

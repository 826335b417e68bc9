"""Finding what the package ships: `configs/x.yaml` means the working folder's first, then the installed one."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from reft_pl.errors import UserError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
RUN_EXPORT = re.compile(r"(?:.*/)?runs/(?P<stage>[\w-]+)/hf/?")


def find(name: str) -> str:
    """The path of ``name`` as it is if that exists, else of the shipped config of that name, else ``name`` unchanged.

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
    """The folder that ``source`` means, or None where it is a hub id.

    Raises:
        UserError: it is neither: the folder of a model or run that is not there.
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

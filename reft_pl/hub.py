"""Models by name: a folder, or a model of the Hugging Face hub or of its cache on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    StrictDataclassError,
)

from reft_pl.errors import UserError, told
from reft_pl.resources import model_folder

HUB_SECONDS = 5.0

BAD_VALUE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, StrictDataclassError, TypeError, ValueError,
)  # fmt: skip
"""What transformers raises where it uses a value of ``config.json`` that has another type, or makes no sense."""


def locate(source: str, trust_remote_code: bool = False) -> tuple[str, dict[str, Any]]:
    """A folder's path or a hub id, with the options that ``from_pretrained`` shall load it by.

    Asks the hub once and briefly, where the library would retry for minutes before it looks into the cache.

    Args:
        source: Folder or hub id.
        trust_remote_code: Run Python code that comes with the model. Always part of the options: ``transformers`` asks on
            standard input where nobody says.

    Raises:
        UserError: there is neither such a folder nor, where the hub answers, such a model.
    """
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    offline = {**options, "local_files_only": True}
    folder = model_folder(source)
    if folder is not None:
        return str(folder), offline
    try:
        HfApi().model_info(source, timeout=HUB_SECONDS)
    except GatedRepoError as error:
        raise UserError(
            f"The hub model {source} is gated: accept its terms on its page and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"There is neither a folder nor a hub model named {source}: check the name.") from error
    except Exception:  # whatever the network did, a copy in the cache may serve
        return source, offline
    return source, options


def remote_code_refused(source: str) -> UserError:
    """The mistake of loading a model that comes with code of its own, which nobody allowed to run."""
    return UserError(
        f"{source} needs Python code of its own, and none of it was run: if you trust its author, set policy.trust_remote_code "
        "in the config, or give `reft-pl solve` --trust_remote_code."
    )


def unusable_config(source: str, error: BaseException) -> UserError:
    """The mistake of a ``config.json`` with a value of another type, or one that no model can be made with."""
    reason = told(error)
    if isinstance(error, StrictDataclassError):  # the field and the type follow in lines of their own
        reason = " ".join(str(error).split()).split("TypeError: ")[-1].split(" Errors:")[0]
    reason = reason.rstrip(".")
    return UserError(f"{source}/config.json cannot be used ({reason}): correct this value, or take the model's original file.")


def stored_file(source: str, name: str, options: Mapping[str, Any]) -> Path | None:
    """One file of a model that ``locate`` found, fetched from the hub if need be; None where the model has no such file.

    Raises:
        OSError: the hub was there a moment ago and is no more.
    """
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source, name, local_files_only=bool(options.get("local_files_only"))))
    except RemoteEntryNotFoundError:
        return None
    except LocalEntryNotFoundError:
        if options.get("local_files_only"):
            return None
        raise

"""Locate models and datasets: a folder, the Hugging Face hub, or its local cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    StrictDataclassError,
)

from reft_pl.errors import UserError, described
from reft_pl.resources import model_folder

HUB_SECONDS = 5.0

BAD_VALUE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, StrictDataclassError, TypeError, ValueError,
)  # fmt: skip
"""What transformers raises when a value in ``config.json`` has the wrong type or makes no sense."""


def locate(source: str, trust_remote_code: bool = False) -> tuple[str, dict[str, Any]]:
    """Return a folder path or hub id, with the options to pass to ``from_pretrained``.

    Makes one short request to the hub; the library would retry for minutes before it falls back to the cache.

    Args:
        source: Folder or hub id.
        trust_remote_code: Run Python code that comes with the model. Always set in the options: if it is missing,
            ``transformers`` asks on standard input.

    Raises:
        UserError: The folder does not exist, and the hub answers that it has no such model.
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
    except Exception:  # on any network failure, try the cached copy
        return source, offline
    return source, options


@contextmanager
def dataset_access(source: str) -> Iterator[None]:
    """Let ``datasets`` load a hub dataset within this block; without a network, from its cache at once.

    Makes one short request to the hub; the library would retry for more than half a minute.

    Raises:
        UserError: The hub answers that it has no such dataset, or that it is gated.
    """
    try:
        HfApi().dataset_info(source, timeout=HUB_SECONDS)
    except GatedRepoError:
        raise UserError(
            f"The hub dataset {source} is gated: accept its terms on its page and log in with `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"There is neither a file nor a hub dataset named {source}: check the name.") from None
    except Exception:  # on any network failure, try the cached copy
        with _without_requests():
            yield
    else:
        yield


@contextmanager
def _without_requests() -> Iterator[None]:
    """Set the offline flags of ``datasets`` and ``huggingface_hub`` within this block."""
    from datasets import config  # noqa: PLC0415 (slow to import, not always needed)

    places: tuple[Any, ...] = (config, constants)
    flags = [(place, place.HF_HUB_OFFLINE) for place in places]
    try:
        for place, _ in flags:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, before in flags:
            place.HF_HUB_OFFLINE = before


def remote_code_refused(source: str) -> UserError:
    """Return the error for a model that ships Python code without permission to run it."""
    return UserError(
        f"{source} needs its Python code, which was not run: if you trust its author, set policy.trust_remote_code "
        "in the config, or give `reft-pl solve` --trust_remote_code."
    )


def unusable_config(source: str, error: BaseException) -> UserError:
    """Return the error for a ``config.json`` with a wrong type or a value that no model can be built from."""
    reason = described(error)
    if isinstance(error, StrictDataclassError):  # the field and the type follow on separate lines
        reason = " ".join(str(error).split()).split("TypeError: ")[-1].split(" Errors:")[0]
    reason = reason.rstrip(".")
    return UserError(f"{source}/config.json cannot be used ({reason}): correct this value, or take the model's original file.")


def stored_file(source: str, name: str, options: Mapping[str, Any]) -> Path | None:
    """Return one file of a model that ``locate`` found, downloading it if needed; None if the model has no such file.

    Raises:
        OSError: The hub became unreachable after ``locate`` found the model.
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

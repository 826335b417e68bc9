"""What the weight files of a stored model hold, tensor by tensor, without building the model.

TRL's value-head models are stored in two forms that ``transformers`` does not know: ``v_head.*`` beside the language model's
weights, which it leaves out, and all of these under ``pretrained_model.``, which makes it draw the whole trunk anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from reft_pl.errors import UserError, first_line
from reft_pl.hub import remote_code_refused, stored_file

WRAPPER = "pretrained_model."
"""What a whole TRL model, stored with its wrapper, puts before the names of its language model's weights."""


class StoredWeights:
    """Names and, when asked for, values of a stored model's tensors; TRL's wrapper is taken off the names.

    Of several weight files the one counts that ``transformers`` would load: safetensors before pickles, one file before
    shards. Pickles are read with ``weights_only=True``, which runs no code of theirs.

    Args:
        source: Folder or hub id, as ``locate`` gave it.
        options: To load by, as ``locate`` gave them.

    Raises:
        UserError: a file is unreadable, or two names are one without the wrapper.
    """

    def __init__(self, source: str, options: Mapping[str, Any]) -> None:
        self.source = source
        self.options = options
        with explained(source):
            stored = self._stored_names()
        self._places = {name.removeprefix(WRAPPER): (file, name) for name, file in stored.items()}
        self.wrapped = any(name.startswith(WRAPPER) for name in stored)
        if len(self._places) < len(stored):
            raise UserError(f"{source} holds weights both with and without {WRAPPER!r} in their names: keep one of the two.")

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors, without TRL's wrapper; none where there are no weight files."""
        return frozenset(self._places)

    def file(self, name: str) -> Path | None:
        """Another file of the model, or None."""
        with explained(self.source):
            return stored_file(self.source, name, self.options)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The values of some tensors, as stored, on the CPU.

        Raises:
            UserError: a file is gone or broken.
        """
        by_file: dict[str, dict[str, str]] = {}
        for name in names:
            file, stored = self._places[name]
            by_file.setdefault(file, {})[stored] = name
        tensors = {}
        with explained(self.source):
            for file, wanted in by_file.items():
                values = _tensors(self._path(file), wanted)
                tensors.update({name: values[stored] for stored, name in wanted.items()})
        return tensors

    def _stored_names(self) -> dict[str, str]:
        """Name as stored to name of the file."""
        for whole, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
            file = stored_file(self.source, whole, self.options)
            if file is not None:
                return dict.fromkeys(_names(file), whole)
            file = stored_file(self.source, index, self.options)
            if file is not None:
                return _weight_map(file)
        return {}

    def _path(self, file: str) -> Path:
        path = stored_file(self.source, file, self.options)
        if path is None:
            raise FileNotFoundError(f"{file} is missing")
        return path


@contextmanager
def explained(source: str, if_absent: str = "") -> Iterator[None]:
    """Turn what reading weights may raise into one sentence about ``source``; ``if_absent`` is advice for where none are."""
    try:
        yield
    except UnpicklingError as error:  # its own text advises to switch the safety off
        raise UserError(
            f"The weights of {source} cannot be loaded: they are a broken pickle, or one that holds more than tensors and "
            "could run code."
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, EOFError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise remote_code_refused(source) from error
        if "ignore_mismatched_sizes" in str(error):  # it refers to a report that nothing prints
            raise UserError(
                f"The weights of {source} have other shapes than its config.json gives: take the config.json of these weights."
            ) from error
        hint = f" ({if_absent})" if if_absent and "no file named" in str(error) else ""
        raise UserError(f"The weights of {source} cannot be loaded: {first_line(error)}{hint}.") from error


def _weight_map(index: Path) -> dict[str, str]:
    content = json.loads(index.read_text(encoding="utf-8"))
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index.name} has no weight_map")  # noqa: TRY004 (the file's fault, not the caller's)
    return cast("dict[str, str]", weight_map)


def _names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as stored:
            return list(stored.keys())
    return list(_unpickled(file))


def _tensors(file: Path, names: Iterable[str]) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        return _unpickled(file)
    with safe_open(file, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in names}


def _unpickled(file: Path) -> dict[str, Tensor]:
    # Mapped into memory, so that looking at names or at one small tensor does not read gigabytes; the old format cannot be.
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no weights by name")  # noqa: TRY004
    return content

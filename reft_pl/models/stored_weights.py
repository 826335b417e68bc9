"""Read individual tensors from a stored model's weight files without building the model.

TRL stores value-head models in two layouts that ``transformers`` does not handle. One adds ``v_head.*`` to the language model's
weights, and ``transformers`` drops it. The other also prefixes the language model's weights with ``pretrained_model.``, and
``transformers`` then initializes the whole trunk at random.
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

from reft_pl.damage import damage, damage_in
from reft_pl.errors import UserError, first_line
from reft_pl.hub import remote_code_refused, stored_file

_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
WRAPPER = "pretrained_model."
"""Prefix that TRL puts before the language model's weight names if it stores the model with its wrapper."""


class StoredWeights:
    """Names and, on request, values of a stored model's tensors, without TRL's wrapper prefix.

    If there are several weight files, the one that ``transformers`` would load is read: safetensors before pickles, a single
    file before shards. Pickles are read with ``weights_only=True``, which runs no code.

    Args:
        source: Folder or hub id, as returned by ``locate``.
        options: Loading options, as returned by ``locate``.

    Raises:
        UserError: A file is unreadable, or two names are equal without the prefix.
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
        """Names of the tensors, without TRL's wrapper prefix; empty if the model has no weight files."""
        return frozenset(self._places)

    def file(self, name: str) -> Path | None:
        """Return the path of another file of the model, or None if there is none."""
        with explained(self.source):
            return stored_file(self.source, name, self.options)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read tensors as stored, on the CPU.

        Raises:
            UserError: A file is missing or broken.
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
        """Map each stored tensor name to the name of its file."""
        for whole, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
            file = stored_file(self.source, whole, self.options)
            if file is not None:
                return dict.fromkeys(_names(file), whole)
            file = stored_file(self.source, index, self.options)
            if file is not None:
                return self._weight_map(file)
        return {}

    def _weight_map(self, index: Path) -> dict[str, str]:
        """Read an index of shards, and check that a folder has them all.

        Raises:
            UserError: The index is broken, or a shard is missing.
        """
        where = f"{self.source}/{index.name}"
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
        except ValueError as error:
            raise damage([index]) or UserError(f"{where} is not JSON ({first_line(error)}): download it again.") from error
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise UserError(f"{where} has no weight_map from names to files: download it again.")
        if not isinstance(content.get("metadata"), dict):
            raise UserError(f'{where} has no metadata, which transformers needs: add "metadata": {{}} to it.')
        shards = sorted(set(weight_map.values())) if Path(self.source).is_dir() else []
        missing = [file for file in shards if not (Path(self.source) / file).is_file()]
        if missing:
            raise UserError(
                f"{self.source} lacks {missing[0]}, one of {len(shards)} files that {index.name} names: download all of them."
            )
        return cast("dict[str, str]", weight_map)

    def _path(self, file: str) -> Path:
        path = stored_file(self.source, file, self.options)
        if path is None:
            raise FileNotFoundError(f"{file} is missing")
        return path


@contextmanager
def explained(source: str, if_absent: str = "") -> Iterator[None]:
    """Convert errors from reading weights into a ``UserError`` about ``source``; ``if_absent`` is advice if it has none."""
    try:
        yield
    except UnpicklingError as error:  # torch's own message suggests disabling the check
        raise damage_in(source, *_FILES) or UserError(
            f"The weights of {source} cannot be loaded: their pickle is broken, or holds more than tensors and could run code; "
            "use safetensors files."
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, EOFError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise remote_code_refused(source) from error
        if "ignore_mismatched_sizes" in str(error):  # its message refers to a report that is never printed
            raise UserError(
                f"The weights of {source} have other shapes than its config.json gives: use the config.json of these weights."
            ) from error
        damaged = damage_in(source, *_FILES)
        if damaged is not None:
            raise damaged from error
        if isinstance(error, (SafetensorError, EOFError)) or "PytorchStreamReader" in str(error):
            raise UserError(
                f"The weights of {source} cannot be loaded, because a file is broken ({first_line(error)}): download it again."
            ) from error
        hint = f" ({if_absent})" if if_absent and "no file named" in str(error) else ""
        raise UserError(f"The weights of {source} cannot be loaded: {first_line(error)}{hint}.") from error


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
    # Memory-mapped, so that listing names or reading one small tensor does not read gigabytes. The pre-zip format cannot be.
    zipped = is_zipfile(file)
    if not zipped:
        with file.open("rb") as begun:
            if begun.read(4) == b"PK\x03\x04":  # the list of contents, at the end of the file, is missing
                raise EOFError(f"{file.name} is cut off")
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no weights by name")  # noqa: TRY004
    return content

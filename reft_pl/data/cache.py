"""Tokenised sequences on disk, found by a digest of their content."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from reft_pl.data.codec import Example


class TokenCache:
    """A folder with one file of sequences a key. A file that is missing or damaged is made anew, a full disk is said and borne.

    Args:
        folder: where the files go; created when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, make: Callable[[], list[Example]]) -> list[Example]:
        """Return the sequences stored under ``key``, or make and store them."""
        path = self.folder / f"{key}.safetensors"
        if path.is_file():
            try:
                return _read(path)
            except (SafetensorError, KeyError, ValueError, RuntimeError, OSError):
                rank_zero_warn(f"the cached file {path} is damaged and is made anew")
        examples = make()
        try:
            _write(path, examples)
        except OSError as error:
            rank_zero_warn(f"cannot cache tokenised data in {self.folder} ({error.strerror}); going on without")
        return examples


def _read(path: Path) -> list[Example]:
    tensors = load_file(path)
    lengths = tensors["lengths"].tolist()
    sequences = torch.split(tensors["ids"], lengths)
    prompts = tensors["prompt_lengths"].tolist()
    return [Example(tuple(ids.tolist()), n) for ids, n in zip(sequences, prompts, strict=True)]


def _write(path: Path, examples: list[Example]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(
        {
            "ids": torch.tensor([i for e in examples for i in e.ids], dtype=torch.int32),
            "lengths": torch.tensor([len(e.ids) for e in examples], dtype=torch.int64),
            "prompt_lengths": torch.tensor([e.prompt_length for e in examples], dtype=torch.int64),
        }
    )
    # Written aside and moved into place: another rank or run never reads half a file.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as aside:
        try:
            aside.write(content)
            aside.close()
            os.replace(aside.name, path)  # noqa: PTH105
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise

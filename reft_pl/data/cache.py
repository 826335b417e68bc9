"""A disk cache of tokenised sequences, keyed by a digest of their inputs."""

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
    """A folder with one file of sequences per key. A missing or damaged file is rebuilt; a full disk only logs a warning.

    Args:
        folder: Folder of the files, created with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, make: Callable[[], list[Example]]) -> list[Example]:
        """Return the sequences cached under ``key``, or make and cache them."""
        path = self.folder / f"{key}.safetensors"
        if path.is_file():
            try:
                return _read(path)
            except (SafetensorError, KeyError, ValueError, RuntimeError, OSError):
                rank_zero_warn(f"the cached file {path} is damaged; rebuilding it")
        examples = make()
        try:
            _write(path, examples)
        except OSError as error:
            rank_zero_warn(f"cannot cache tokenised data in {self.folder} ({error.strerror}); continuing without the cache")
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
    # Write atomically, so that another rank or run never reads a partial file.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as aside:
        try:
            aside.write(content)
            aside.close()
            os.replace(aside.name, path)  # noqa: PTH105
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise

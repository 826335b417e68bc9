"""The model card of an imported GGUF file: what the file itself says, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import ModelCardData

from reft_pl.escapes import one_line

_BASE = re.compile(r"general\.base_model\.\d+\.repo_url")
_HUB_URL = re.compile(r"https://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)/?")
_SHOWN = ("name", "organization", "finetune", "size_label", "version", "quantized_by", "url", "repo_url", "source.repo_url")


def gguf_card(file: Path) -> str:
    """Text of the card: license, languages and base models as metadata, and the names that the file goes by.

    All is from the ``general.*`` fields; what they do not say is left out. Base models are those whose place on the hub is
    given.
    """
    said = _general_texts(file)
    bases = [match[1] for name in said if _BASE.fullmatch(name) if (match := _HUB_URL.fullmatch(said[name][0]))]
    data = ModelCardData(
        library_name="transformers",
        license=said.get("general.license", [None])[0],
        license_name=said.get("general.license.name", [None])[0],
        license_link=said.get("general.license.link", [None])[0],
        language=said.get("general.languages"),
        base_model=bases[0] if len(bases) == 1 else bases or None,
    )
    shown = [f"general.{name}" for name in _SHOWN if f"general.{name}" in said]
    # An indented block, for names of strangers may hold any markup.
    fields = [f"    {name} = {said[name][0]}\n" for name in shown]
    about = f"\nWhat the file says it is:\n\n{''.join(fields)}" if fields else ""
    return (
        f"---\n{data.to_yaml()}\n---\n\n# A GGUF file as a transformers folder\n\n"
        f"`reft-pl import-gguf` wrote these weights: what the quantised file held, as bfloat16. License and base model, where "
        f"they stand above, are what the file says.\n{about}"
    )


def _general_texts(file: Path) -> dict[str, list[str]]:
    """The ``general.*`` fields that hold a text or several, each on one line."""
    from gguf import GGUFReader, GGUFValueType  # noqa: PLC0415 (an extra)

    return {
        name: [_line(bytes(field.parts[place])) for place in field.data]
        for name, field in GGUFReader(file).fields.items()
        if name.startswith("general.") and field.types[-1] == GGUFValueType.STRING and len(field.data)
    }


def _line(text: bytes) -> str:
    return one_line(" ".join(text.decode("utf-8", "replace").split()))

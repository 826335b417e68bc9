"""Model card of an imported GGUF file, written only from the file's own metadata."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import ModelCardData

from reft_pl.escapes import one_line

_BASE = re.compile(r"general\.base_model\.\d+\.repo_url")
_HUB_URL = re.compile(r"https://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)/?")
_SHOWN = ("name", "organization", "finetune", "size_label", "version", "quantized_by", "url", "repo_url", "source.repo_url")


def gguf_card(file: Path) -> str:
    """Return the card's text: license, languages and base models as metadata, then the file's own names.

    Everything comes from the file's ``general.*`` fields; missing ones are omitted. Only base models with a hub URL are listed.
    """
    fields = _general_texts(file)
    bases = [match[1] for name in fields if _BASE.fullmatch(name) if (match := _HUB_URL.fullmatch(fields[name][0]))]
    data = ModelCardData(
        library_name="transformers",
        license=fields.get("general.license", [None])[0],
        license_name=fields.get("general.license.name", [None])[0],
        license_link=fields.get("general.license.link", [None])[0],
        language=fields.get("general.languages"),
        base_model=bases[0] if len(bases) == 1 else bases or None,
    )
    shown = [f"general.{name}" for name in _SHOWN if f"general.{name}" in fields]
    # An indented block, because these untrusted names may hold any markup.
    lines = [f"    {name} = {fields[name][0]}\n" for name in shown]
    about = f"\nMetadata in the file:\n\n{''.join(lines)}" if lines else ""
    return (
        f"---\n{data.to_yaml()}\n---\n\n# A GGUF file as a transformers folder\n\n"
        f"`reft-pl import-gguf` wrote these weights: those of the quantised file, as bfloat16. License and base model, if "
        f"given above, come from the file's metadata.\n{about}"
    )


def _general_texts(file: Path) -> dict[str, list[str]]:
    """Return the ``general.*`` fields that hold text, each text on one line."""
    from gguf import GGUFReader, GGUFValueType  # noqa: PLC0415 (an extra)

    return {
        name: [_line(bytes(field.parts[place])) for place in field.data]
        for name, field in GGUFReader(file).fields.items()
        if name.startswith("general.") and field.types[-1] == GGUFValueType.STRING and len(field.data)
    }


def _line(text: bytes) -> str:
    return one_line(" ".join(text.decode("utf-8", "replace").split()))

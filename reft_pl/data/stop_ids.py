"""Read from a model's files which token ids end a response."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reft_pl.errors import UserError, first_line
from reft_pl.hub import locate, stored_file

FILES = ("generation_config.json", "config.json")
"""Files that declare stop ids. Many instruct models (Llama-3, Gemma, Phi) declare the end of a turn only here."""

_ADAPTER_FILE = "adapter_config.json"


def load_stop_ids(name_or_path: str, trust_remote_code: bool = False) -> tuple[int, ...]:
    """Return every ``eos_token_id`` in a model's generation config and config, in this order.

    Args:
        name_or_path: Folder or hub id.
        trust_remote_code: The setting with which the model is loaded; no code runs here.

    Raises:
        UserError: there is no such model, a file is not JSON, or it declares something other than token ids.
    """
    return declared_stop_ids(*locate(name_or_path, trust_remote_code))


def declared_stop_ids(source: str, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the stop ids of a model that ``locate`` found; a folder of adapters includes those of its base model.

    The files are read as raw JSON because the config classes of transformers fill in defaults of a family's first model (2 for
    Llama), which are ordinary tokens in other vocabularies.
    """
    ids = _declared(source, options)
    base = _read(source, _ADAPTER_FILE, options).get("base_model_name_or_path")
    if isinstance(base, str) and base:
        with suppress(UserError):  # the base model may be missing if only the tokenizer is needed
            ids += _declared(*locate(base, bool(options.get("trust_remote_code"))))
    return tuple(dict.fromkeys(ids))


def _declared(source: str, options: Mapping[str, Any]) -> list[int]:
    ids: list[int] = []
    for name in FILES:
        content = _read(source, name, options)
        text_config = content.get("text_config")
        for holder in (content, text_config if isinstance(text_config, dict) else {}):
            ids += _ids(holder.get("eos_token_id"), f"{source}/{name}")
    return ids


def _read(source: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read a JSON file of the model; empty if the model has no such file."""
    try:
        file = stored_file(source, name, options)
        content = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{source}/{name} cannot be read ({first_line(error)}): download it again or repair it") from None
    if not isinstance(content, dict):
        raise UserError(f"{source}/{name} is not a JSON object: download it again or repair it")
    return content


def _ids(value: object, where: str) -> list[int]:
    given: list[object] = value if isinstance(value, list) else [] if value is None else [value]
    ids = [token_id for token_id in given if isinstance(token_id, int) and not isinstance(token_id, bool)]
    if len(ids) < len(given):
        raise UserError(f"eos_token_id in {where} is {value!r:.60}, not a token id or a list of token ids: correct it")
    return ids

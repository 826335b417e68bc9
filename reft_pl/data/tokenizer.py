"""Load the tokenizer of a model folder or hub id, and reject a broken one."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from reft_pl.damage import damage_in
from reft_pl.data.stop_ids import declared_stop_ids
from reft_pl.errors import UserError, described, first_line
from reft_pl.hub import locate, remote_code_refused, unusable_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILES = ("config.json", "*token*.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken")
_PROBE = "Ann has 12 pens\nand 3 books"
"""A text that every tokenizer round-trips, up to case and whitespace."""


def load_tokenizer(name_or_path: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer, and fill in missing special tokens from the model's config.

    Galactica's tokenizer, for example, names no EOS token itself.

    Args:
        name_or_path: Folder or hub id.
        trust_remote_code: Run Python code that comes with the tokenizer.

    Raises:
        UserError: the folder, the hub or the hub's cache has no such tokenizer, it needs untrusted code, it does not
            round-trip a text, or its chat templates are not text.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 (slow to import, and not every command needs it)

    source, options = locate(name_or_path, trust_remote_code)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # broken files raise all kinds of exceptions
        if "trust_remote_code" in str(error):
            raise remote_code_refused(name_or_path) from None
        if isinstance(error, StrictDataclassError):
            raise unusable_config(name_or_path, error) from None
        raise damage_in(source, *_FILES) or UserError(
            f"no tokenizer could be loaded from {name_or_path!r} ({described(error).rstrip(': ')}): check its tokenizer files"
        ) from None
    try:
        _check_text(tokenizer, name_or_path)
    except UserError as error:
        raise damage_in(source, *_FILES) or error from None
    _check_templates(tokenizer, name_or_path)
    missing = [role for role in ("eos_token", "pad_token") if getattr(tokenizer, role) is None]
    if missing:
        _take_from_config(tokenizer, source, options, missing)
    return tokenizer


def _check_text(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Round-trip a text, because transformers builds an empty tokenizer if the vocabulary is missing."""
    try:
        ids = tokenizer(_PROBE, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        text = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    except Exception as error:  # without an unknown token, the exception depends on the backend
        raise UserError(
            f"the tokenizer of {name!r} cannot encode {_PROBE!r} ({first_line(error)}): its tokenizer.json is missing, or its "
            "tokenizer_class is wrong; copy the tokenizer files of the model again"
        ) from None
    if text.casefold().split() != _PROBE.casefold().split():
        raise UserError(
            f"the tokenizer of {name!r} turns {_PROBE!r} into {text[:60]!r}: its tokenizer.json is missing, or its "
            "tokenizer_class is wrong; copy the tokenizer files of the model again"
        )


def _check_templates(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Reject chat templates that transformers could not save with the export after training."""
    template: Any = tokenizer.chat_template
    named = template if isinstance(template, dict) else {"default": template}
    for key, text in named.items():
        if not (isinstance(text, str) or (text is None and template is None)):
            raise UserError(f"the chat template {key!r} of {name!r} is {text!r:.40}, not text: repair it or remove it")
        if not isinstance(key, str) or not key or PurePath(key).name != key:
            raise UserError(f"a chat template of {name!r} is named {key!r:.40}, which is no file name: rename it or remove it")


def _take_from_config(tokenizer: PreTrainedTokenizerBase, source: str, options: dict[str, Any], roles: list[str]) -> None:
    from transformers import AutoConfig  # noqa: PLC0415

    stops = declared_stop_ids(source, options) if "eos_token" in roles else ()
    try:
        config = AutoConfig.from_pretrained(source, **options).get_text_config()
    except Exception:  # a folder with only a tokenizer, or a config that the model loader will reject
        config = None
    for role in roles:
        listed = getattr(config, f"{role}_id", None)
        first = stops if role == "eos_token" else ()
        for token_id in [*first, *(listed if isinstance(listed, list) else [listed])]:
            token = tokenizer.convert_ids_to_tokens(token_id) if is_token_id(token_id, len(tokenizer)) else None
            if isinstance(token, str):
                setattr(tokenizer, role, token)
                break


def is_token_id(value: object, size: int) -> bool:
    """Whether ``value`` is a valid index into ``size`` tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size

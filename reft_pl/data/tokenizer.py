"""Loading the tokenizer of a model folder or hub id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reft_pl.errors import UserError, first_line
from reft_pl.hub import BAD_VALUE, locate, remote_code_refused, unusable_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name_or_path: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Special tokens that it does not name itself are taken from the model's config beside it: Galactica's tokenizer, for one,
    leaves EOS to that.

    Args:
        name_or_path: Folder or hub id.
        trust_remote_code: Run Python code that comes with the tokenizer.

    Raises:
        UserError: the folder holds none, the hub (and its cache) does not have it, or it needs code that is not trusted.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 (slow to import, and not every command needs it)

    source, options = locate(name_or_path, trust_remote_code)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise remote_code_refused(name_or_path) from None
        raise UserError(f"no tokenizer could be loaded from {name_or_path!r}: {first_line(error)}") from None
    except BAD_VALUE as error:  # it reads the model's config, too
        raise unusable_config(name_or_path, error) from error
    missing = [role for role in ("eos_token", "pad_token") if getattr(tokenizer, role) is None]
    if missing:
        _take_from_config(tokenizer, source, options, missing)
    return tokenizer


def _take_from_config(tokenizer: PreTrainedTokenizerBase, source: str, options: dict[str, Any], roles: list[str]) -> None:
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(source, **options).get_text_config()
    except (OSError, *BAD_VALUE):
        return  # a folder with a tokenizer alone; the codec says what it lacks
    for role in roles:
        token_id = getattr(config, f"{role}_id", None)
        if isinstance(token_id, int) and 0 <= token_id < len(tokenizer):
            setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(token_id))

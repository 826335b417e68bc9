"""What a stage leaves behind: a plain transformers folder that says how to use it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from reft_pl.errors import UserError
from reft_pl.models.adapter_folder import save_adapter
from reft_pl.models.folders import replace_folder
from reft_pl.models.lineage import CARD_FILE
from reft_pl.models.policy import Policy
from reft_pl.models.value_file import save_value

DESCRIPTION_FILE = "reft.json"


def export_folder(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    description: Mapping[str, Any],
    card: str | None = None,
    adapter_of: str | None = None,
    *,
    stop_ids: Collection[int] = (),
    unused_ids: Sequence[tuple[int, int]] = (),
) -> None:
    """Write weights, tokenizer, value function, description, card, generation settings; a former folder is replaced whole.

    ``AutoModelForCausalLM.from_pretrained(folder)`` loads it anywhere, and ``generate`` there decodes as our Top-1 does:
    greedily, to the first stop id, up to ``description["max_tokens"]`` tokens in all, prompt included.

    Args:
        policy: What to write; on any device, left as it is.
        tokenizer: With EOS.
        folder: Where to. It appears complete or not at all.
        description: Prompt form, limits, stage: JSON-serialisable, read back by ``read_description``.
        card: Text of the model card, if there shall be one.
        adapter_of: Write the policy's adapters alone, and this as the model that they belong to; None writes whole weights,
            adapters merged into them.
        stop_ids: Ids that end a response, beside the tokenizer's EOS.
        unused_ids: Half-open ranges of ids that are no tokens, so that ``generate`` does not choose them either.
    """
    eos = tokenizer.eos_token_id
    stops = list(dict.fromkeys([eos, *stop_ids]))
    unused = [token_id for start, end in unused_ids for token_id in range(start, end)]
    generation = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=policy.lm.config.get_text_config().bos_token_id,
        eos_token_id=eos if len(stops) == 1 else stops,
        pad_token_id=eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        max_length=description.get("max_tokens"),
        suppress_tokens=unused or None,
    )
    with replace_folder(folder) as fresh:
        if adapter_of is None:
            policy.lm.save_pretrained(fresh, state_dict=dict(policy.weights()))
        else:  # no config.json beside: transformers would look for the base's weights in this folder
            save_adapter(policy.lm, fresh, adapter_of)
        tokenizer.save_pretrained(fresh)
        generation.save_pretrained(fresh)
        save_value(policy, fresh)
        write_description(fresh, description, card)


def write_description(folder: Path, description: Mapping[str, Any], card: str | None = None) -> None:
    """Say in ``reft.json`` what the model in ``folder`` is and how to use it, and to people in a model card."""
    text = json.dumps(dict(description), indent=2, ensure_ascii=False)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    if card is not None:
        (folder / CARD_FILE).write_text(card, encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """What ``export_folder`` wrote about the model in ``folder``; empty for a folder that it did not write.

    Raises:
        UserError: the file is there and is no JSON object.
    """
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        return {}
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): export the model again.") from error
    if not isinstance(description, dict):
        raise UserError(f"{file} holds no JSON object: export the model again.")
    return description

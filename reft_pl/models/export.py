"""What a stage leaves behind: a plain transformers folder that says how to use it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from reft_pl.errors import UserError, of_files, told
from reft_pl.escapes import one_line
from reft_pl.models.adapter_folder import save_adapter
from reft_pl.models.base_model_metadata import CARD_FILE
from reft_pl.models.folders import replace_folder
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
    weights: bool = True,
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
        weights: False leaves the weights out, to find out whether the rest can be written.
        stop_ids: Ids that end a response, beside the tokenizer's EOS.
        unused_ids: Half-open ranges of ids that are no tokens, so that ``generate`` does not choose them either.
    """
    with replace_folder(folder) as fresh:
        if adapter_of is None:
            save_model(policy.lm, fresh, dict(policy.weights()) if weights else {})
        else:  # no config.json beside: transformers would look for the base's weights in this folder
            save_adapter(policy.lm, fresh, adapter_of)
        tokenizer.save_pretrained(fresh)
        generation = generation_settings(policy.lm, tokenizer, description.get("max_tokens"), stop_ids, unused_ids)
        generation.save_pretrained(fresh)
        if weights:
            save_value(policy, fresh)
        write_description(fresh, description, card)


def generation_settings(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None,
    stop_ids: Collection[int] = (),
    unused_ids: Sequence[tuple[int, int]] = (),
) -> GenerationConfig:
    """Settings by which ``generate`` decodes greedily; nothing of what the model came with.

    Args:
        lm: The model, which may name BOS.
        tokenizer: Names EOS and the padding token.
        max_tokens: Length of prompt and completion together; None is the default of ``transformers``.
        stop_ids: Ids that end a response, beside the tokenizer's EOS.
        unused_ids: Half-open ranges of ids that are no tokens.
    """
    stops = list(dict.fromkeys([tokenizer.eos_token_id, *stop_ids]))
    unused = [token_id for start, end in unused_ids for token_id in range(start, end)]
    eos, bos = tokenizer.eos_token_id, lm.config.get_text_config().bos_token_id
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=bos if isinstance(bos, int) and 0 <= bos < len(tokenizer) else None,
        eos_token_id=eos if len(stops) == 1 else stops,
        pad_token_id=eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        max_length=max_tokens,
        suppress_tokens=unused or None,
    )


def save_model(model: PreTrainedModel, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write config and weights without the generation settings that the model came with.

    ``transformers`` loads settings that it refuses to save, such as a temperature beside greedy decoding.

    Args:
        model: What to write; left as it is.
        folder: Where to.
        weights: Other weights than the model's own.
    """
    carried = getattr(model, "generation_config", None)
    if carried is not None:
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    misplaced = [(config, name, value) for config in configs for name, value in config._get_generation_parameters().items()]
    for config, name, _ in misplaced:
        setattr(config, name, None)
    try:
        model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    finally:
        for config, name, value in misplaced:
            setattr(config, name, value)
        if carried is not None:
            model.generation_config = carried


def check_export(source: str, write: Callable[[Path], None]) -> None:
    """Find out before training whether its result can be exported.

    Args:
        source: Where the model comes from.
        write: Writes the export, without weights, to a folder.

    Raises:
        UserError: it cannot.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            write(Path(scratch) / "hf")
        except Exception as error:  # whatever transformers does not want to save
            if of_files(error):  # a full disk for temporary files says nothing about the model
                return
            raise UserError(
                f"what is trained from {source} could not be exported ({one_line(told(error))}): correct its config.json "
                f"or tokenizer_config.json"
            ) from error


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

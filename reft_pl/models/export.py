"""Export a trained policy as a plain transformers folder with a description of how to use it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from reft_pl.errors import UserError, described, of_files
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
    """Write weights, tokenizer, value function, generation settings, description and card, replacing ``folder``.

    ``AutoModelForCausalLM.from_pretrained(folder)`` loads the result anywhere. ``generate`` then decodes as Top-1 evaluation
    does: greedily, to the first stop id, up to ``description["max_tokens"]`` tokens including the prompt.

    Args:
        policy: The policy, on any device; not modified.
        tokenizer: A tokenizer with EOS.
        folder: Output folder, which appears complete or not at all.
        description: Prompt format, limits and stage; JSON-serialisable, read back by ``read_description``.
        card: Text of the model card; None writes no card.
        adapter_of: Write only the policy's adapters and name this as their base model. None writes full weights with the
            adapters merged.
        weights: False omits the weights, to check that the rest can be written.
        stop_ids: Ids that end a response, besides the tokenizer's EOS.
        unused_ids: Half-open ranges of ids that are not tokens, which ``generate`` must not choose.
    """
    with replace_folder(folder) as fresh:
        if adapter_of is None:
            save_model(policy.lm, fresh, dict(policy.weights()) if weights else {})
        else:  # without config.json; with it, transformers would look for the base model's weights in this folder
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
    """Build settings for greedy decoding with ``generate``, ignoring the model's own generation settings.

    Args:
        lm: The model; its config may name BOS.
        tokenizer: Provides EOS and the padding token.
        max_tokens: Maximum length in tokens, prompt included; None is the default of ``transformers``.
        stop_ids: Ids that end a response, besides the tokenizer's EOS.
        unused_ids: Half-open ranges of ids that are not tokens.
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
    """Write config and weights without the model's own generation settings.

    ``transformers`` loads settings that it refuses to save, such as a temperature with greedy decoding.

    Args:
        model: The model; not modified.
        folder: Output folder.
        weights: Weights to write instead of the model's own; with an empty mapping, only the config is written.
    """
    carried = getattr(model, "generation_config", None)
    if carried is not None:
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    misplaced = [(config, name, value) for config in configs for name, value in config._get_generation_parameters().items()]
    for config, name, _ in misplaced:
        setattr(config, name, None)
    try:
        if weights is not None and not weights:
            model.config.save_pretrained(folder)  # without weights; the model's method imports DeepSpeed, which takes a second
        else:
            model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    finally:
        for config, name, value in misplaced:
            setattr(config, name, value)
        if carried is not None:
            model.generation_config = carried


def check_export(source: str, write: Callable[[Path], None]) -> None:
    """Check before training that its result can be exported.

    Args:
        source: Folder or hub id of the model, for the error message.
        write: Writes the export, without weights, to a folder.

    Raises:
        UserError: The export fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            write(Path(scratch) / "hf")
        except Exception as error:  # transformers raises many types for what it refuses to save
            if of_files(error):  # a full temporary disk is no fault of the model
                return
            raise UserError(
                f"a model trained from {source} could not be exported ({one_line(described(error))}): correct its config.json "
                f"or tokenizer_config.json"
            ) from error


def write_description(folder: Path, description: Mapping[str, Any], card: str | None = None) -> None:
    """Write ``reft.json``, which describes the model and how to use it, and the model card if given."""
    text = json.dumps(dict(description), indent=2, ensure_ascii=False)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    if card is not None:
        (folder / CARD_FILE).write_text(card, encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Read the description that ``export_folder`` wrote; empty if ``folder`` has none.

    Raises:
        UserError: The file exists but is not a readable JSON object.
    """
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        return {}
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): export the model again.") from error
    if not isinstance(description, dict):
        raise UserError(f"{file} is not a JSON object: export the model again.")
    return description

"""Load stored ``transformers`` models and report missing and unused weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel

from reft_pl.damage import damage_in
from reft_pl.errors import UserError, first_line
from reft_pl.hub import BAD_VALUE, remote_code_refused, unusable_config
from reft_pl.models.config_values import refuse_values
from reft_pl.models.stored_weights import StoredWeights, explained

VALUE_HEAD = "v_head."
"""Name prefix of TRL's value head."""

_BUFFER = re.compile(r"(?:attn|attention)\.(?:masked_)?bias$|(?:inv_freq|position_ids|causal_mask)$")
"""Constants that older versions of ``transformers`` stored with the weights."""


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode on the CPU, and the weights that did not match its files.

    Args:
        model: The model.
        missing: Weights of the model that the files lack; they hold random values.
        unplaced: Weights in the files that the model lacks, except constants and TRL's value head.
    """

    model: PreTrainedModel
    missing: frozenset[str]
    unplaced: frozenset[str]


def load_config(source: str, options: Mapping[str, Any]) -> PreTrainedConfig:
    """Load the configuration of a model that ``locate`` found.

    References to remote code are removed unless ``options`` trust it, so neither loading nor an export runs that code.

    Raises:
        UserError: The configuration is missing, unknown to transformers, needs untrusted code, or holds an impossible number.
    """
    options = {"trust_remote_code": False, **options}
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise UserError(f"The folder {source} holds no config.json: name a model folder (in a run folder, that is hf/).")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, **options)
    except OSError as error:
        if Path(source).is_dir():
            raise damage_in(source, "config.json") or UserError(
                f"{source}/config.json cannot be read ({first_line(error)}): restore the file."
            ) from error
        raise UserError(
            f"{source} is not a folder, the hub cannot be reached, and the hub's cache does not have it: "
            "name an existing folder, or connect to the network and try again."
        ) from error
    except (ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise remote_code_refused(source) from error
        raise UserError(f"transformers does not support the model in {source} ({first_line(error)}).") from error
    except BAD_VALUE as error:
        raise unusable_config(source, error) from error
    if not options["trust_remote_code"]:
        _forget_code(config, source)
    refuse_values(source, config)
    return config


def _forget_code(config: PreTrainedConfig, source: str) -> None:
    """Remove custom classes from a configuration, and reject an attention kernel that transformers would download and run."""
    vars(config).pop("auto_map", None)
    kernel = config._attn_implementation
    if kernel is not None and "/" in str(kernel):
        raise remote_code_refused(source)


def supported_attention(auto: Any, config: PreTrainedConfig, attention: str | None) -> str | None:
    """Return the requested attention implementation, or eager if the architecture lacks sdpa (Bloom, GPT-J, MPT)."""
    model = auto._model_mapping.get(type(config), None)
    return "eager" if attention == "sdpa" and not getattr(model, "_supports_sdpa", True) else attention


@contextmanager
def made_from(source: str) -> Iterator[None]:
    """Convert errors from building a model with an invalid ``config.json`` into a ``UserError`` about ``source``.

    ``ValueError``, ``RuntimeError`` and ``ImportError`` pass through, because weight files raise them too.
    """
    try:
        yield
    except (ValueError, RuntimeError):
        raise
    except BAD_VALUE as error:
        raise unusable_config(source, error) from error


def load_pretrained(
    auto: Any,
    stored: StoredWeights,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    attention: str | None = None,
    if_absent: str = "",
) -> Loaded:
    """Load a model from stored weights.

    Args:
        auto: ``AutoModelForCausalLM`` or ``AutoModelForSequenceClassification``.
        stored: The weights, in either of TRL's layouts or a plain one.
        config: The model's configuration.
        dtype: Dtype of the weights. What transformers keeps in float32, such as rotary frequencies, stays in float32.
        attention: Attention implementation of ``transformers``; None means its default.
        if_absent: Advice for the error message if there are no weights.

    Raises:
        UserError: The weights cannot be read or do not have the configured shapes.
    """
    attention = supported_attention(auto, config, attention)
    settings = {"config": config, "dtype": dtype, "attn_implementation": attention, "output_loading_info": True}
    # The model's generation settings are never used, and transformers may reject them when it reads them.
    settings["generation_config"] = GenerationConfig()  # type: ignore[no-untyped-call]
    with explained(stored.source, if_absent), made_from(stored.source):
        if stored.wrapped:
            # ``key_mapping`` would be inverted on save, so an export would get the wrapper prefix again.
            weights = stored.read(name for name in stored.names if not name.startswith(VALUE_HEAD))
            model, info = auto._model_mapping[type(config)].from_pretrained(None, state_dict=weights, **settings)
        else:
            model, info = auto.from_pretrained(stored.source, weights_only=True, **settings, **stored.options)
    unplaced = {name for name in info["unexpected_keys"] if not name.startswith(VALUE_HEAD) and not _BUFFER.search(name)}
    return Loaded(model, frozenset(info["missing_keys"]), frozenset(unplaced))


def refuse_unplaced(source: str, loaded: Loaded, replaced: tuple[str, ...] = ()) -> None:
    """Reject a model that would silently lose stored weights.

    Args:
        source: Name of the model in the error message.
        loaded: Result of ``load_pretrained``.
        replaced: Name prefixes of weights that may be dropped.

    Raises:
        UserError: A stored weight has no place in the model.
    """
    lost = sorted(name for name in loaded.unplaced if not name.startswith(replaced))
    if lost:
        raise UserError(
            f"{source} holds weights that {type(loaded.model).__name__} has no place for, such as {lost[0]}: choose another "
            "model, or take the config.json that belongs to these weights."
        )

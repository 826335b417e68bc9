"""Building a stored model of ``transformers`` and saying what became of every weight."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel

from reft_pl.errors import UserError, first_line
from reft_pl.hub import BAD_VALUE, remote_code_refused, unusable_config
from reft_pl.models.stored_weights import StoredWeights, explained

VALUE_HEAD = "v_head."
"""What the names of TRL's value head begin with."""

_BUFFER = re.compile(r"(?:attn|attention)\.(?:masked_)?bias$|(?:inv_freq|position_ids|causal_mask)$")
"""Constants that former versions stored; not weights."""


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode on the CPU, and the weights that found no counterpart.

    Args:
        model: The model.
        missing: Weights that the model has and the files do not: their values are a draw.
        unplaced: Weights that the files have and the model does not; constants and TRL's value head are left out.
    """

    model: PreTrainedModel
    missing: frozenset[str]
    unplaced: frozenset[str]


def load_config(source: str, options: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of a model that ``locate`` found.

    Code that the configuration names is forgotten unless ``options`` trust it: neither loading nor an export meets it again.

    Raises:
        UserError: there is none, one that transformers does not know, or one that needs code that is not trusted.
    """
    options = {"trust_remote_code": False, **options}
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise UserError(f"The folder {source} holds no config.json: it is no model (that of a run is in its hf/ folder).")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, **options)
    except OSError as error:
        if Path(source).is_dir():
            raise UserError(f"{source}/config.json cannot be read ({first_line(error)}).") from error
        raise UserError(
            f"{source} is no folder, the hub cannot be reached, and the hub's cache does not have it: "
            "give the path of an existing folder, or connect and try again."
        ) from error
    except (ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise remote_code_refused(source) from error
        raise UserError(f"transformers does not know the model of {source} ({first_line(error)}).") from error
    except BAD_VALUE as error:
        raise unusable_config(source, error) from error
    if not options["trust_remote_code"]:
        _forget_code(config, source)
    return config


def _forget_code(config: PreTrainedConfig, source: str) -> None:
    """Drop the classes that a configuration names; refuse an attention kernel that transformers would fetch and run."""
    vars(config).pop("auto_map", None)
    kernel = config._attn_implementation
    if kernel is not None and "/" in str(kernel):
        raise remote_code_refused(source)


def supported_attention(auto: Any, config: PreTrainedConfig, attention: str | None) -> str | None:
    """The attention implementation asked for, or eager instead of sdpa for an architecture without it (Bloom, GPT-J, MPT)."""
    model = auto._model_mapping.get(type(config), None)
    return "eager" if attention == "sdpa" and not getattr(model, "_supports_sdpa", True) else attention


@contextmanager
def made_from(source: str) -> Iterator[None]:
    """Turn what building a model from an unfit ``config.json`` raises into one sentence about ``source``.

    A ``ValueError``, ``RuntimeError`` or ``ImportError`` passes: these speak of weights, too.
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
    """Build a model from stored weights.

    Args:
        auto: What kind of model: ``AutoModelForCausalLM`` or ``AutoModelForSequenceClassification``.
        stored: The weights, whichever form TRL gave their names.
        config: The model's configuration.
        dtype: Of the weights; what transformers keeps in float32, such as rotary frequencies, stays so.
        attention: Attention implementation of ``transformers``.
        if_absent: Advice for where there are no weights.

    Raises:
        UserError: the weights cannot be read, or have other shapes.
    """
    attention = supported_attention(auto, config, attention)
    settings = {"config": config, "dtype": dtype, "attn_implementation": attention, "output_loading_info": True}
    # The model's own generation settings are never used: transformers would read them, and may refuse them.
    settings["generation_config"] = GenerationConfig()  # type: ignore[no-untyped-call]
    with explained(stored.source, if_absent), made_from(stored.source):
        if stored.wrapped:
            # Not ``key_mapping``, which the model keeps and turns round when it is saved: the export would be wrapped again.
            weights = stored.read(name for name in stored.names if not name.startswith(VALUE_HEAD))
            model, info = auto._model_mapping[type(config)].from_pretrained(None, state_dict=weights, **settings)
        else:
            model, info = auto.from_pretrained(stored.source, weights_only=True, **settings, **stored.options)
    unplaced = {name for name in info["unexpected_keys"] if not name.startswith(VALUE_HEAD) and not _BUFFER.search(name)}
    return Loaded(model, frozenset(info["missing_keys"]), frozenset(unplaced))


def refuse_unplaced(source: str, loaded: Loaded, replaced: tuple[str, ...] = ()) -> None:
    """Refuse a model that would go on without some of its weights.

    Args:
        source: What to call it.
        loaded: As ``load_pretrained`` gave it.
        replaced: Beginnings of names that the model is to do without.

    Raises:
        UserError: a weight has no place in the model.
    """
    lost = sorted(name for name in loaded.unplaced if not name.startswith(replaced))
    if lost:
        raise UserError(
            f"{source} holds weights that {type(loaded.model).__name__} has no place for, {lost[0]} for one: it is a model of "
            "another kind, or its config.json is not its own."
        )

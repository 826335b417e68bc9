"""Two-class sequence classifiers, the form of a reranker: from a stored one, or begun on the trunk of a language model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from reft_pl.errors import UserError
from reft_pl.models.adapter_folder import locate_weights
from reft_pl.models.finite import refuse_not_finite
from reft_pl.models.pretrained import load_config, load_pretrained, refuse_unplaced
from reft_pl.models.stored_weights import StoredWeights

logger = logging.getLogger(__name__)

CLASSES = 2
"""Class 0 is a wrong solution, class 1 a right one."""

_LM_HEADS = ("lm_head.", "embed_out.")


def load_classifier(
    name_or_path: str,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a two-class classifier, in eval mode and on the CPU, by the model class that ``AutoModel...`` has for it.

    A causal language model, such as a run's ``hf/`` folder, gives its trunk as it is, adapters merged; its LM head and
    value head stay behind, and a classification head is drawn.

    The model classifies a row by its last token that is not ``config.pad_token_id``: pad batches with that token, on the
    right. It is the tokenizer's padding token, or EOS where there is none (then rows must not end in EOS).

    Args:
        name_or_path: Folder or hub id.
        dtype: Number format of the weights.
        seed: Of a head that is drawn: in every number format the same, but for rounding. The global generator is left alone.
        attention: Attention implementation of ``transformers``; None is the one that it prefers.
        trust_remote_code: Run Python code that the model comes with; its class must be one of ``transformers`` all the same.

    Raises:
        UserError: nothing there, the hub out of reach, unreadable or incomplete weights, other than two classes, or an
            architecture that has no classifier.
    """
    source, options, adapter = locate_weights(name_or_path, trust_remote_code)
    config = load_config(source, options)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(f"transformers has no sequence classifier of the kind of {name_or_path} ({config.model_type}).")
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if is_classifier and config.num_labels != CLASSES:
        raise UserError(
            f"{name_or_path} tells {config.num_labels} classes apart, and a reranker two, wrong and right: name a classifier "
            "of two classes, or a language model to begin one on."
        )
    config.num_labels = CLASSES  # a language model's own number means nothing
    stored = StoredWeights(source, options)
    with torch.random.fork_rng(devices=[]):  # the library draws what is missing; ``_draw_head`` draws it again, by the seed
        loaded = load_pretrained(AutoModelForSequenceClassification, stored, config, dtype, attention)
    model = loaded.model
    if adapter is not None:
        adapter.merge_into(model)
    refuse_not_finite(name_or_path, model)
    head = {name for name in loaded.missing if not name.startswith(f"{model.base_model_prefix}.")}
    absent = loaded.missing if is_classifier else loaded.missing - head
    if absent:
        raise UserError(f"{name_or_path} lacks weights of {type(model).__name__}, {min(absent)} for one: it is incomplete.")
    refuse_unplaced(name_or_path, loaded, () if is_classifier else _LM_HEADS)
    if head:
        _draw_head(model, head, seed)
        logger.info("%s has no classification head: one is drawn from seed %d", name_or_path, seed)
    model.config.pad_token_id = _pad_id(source, options, config)
    return model


def _draw_head(model: PreTrainedModel, names: Iterable[str], seed: int) -> None:
    """Matrices from the normal distribution that the architecture begins with, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    settings = model.config.to_dict()
    std: float = settings.get("initializer_range") or settings.get("init_std") or 0.02
    for name in sorted(names):
        parameter = model.get_parameter(name)
        drawn = torch.zeros(parameter.shape)
        parameter.data.copy_(drawn.normal_(std=std, generator=generator) if drawn.ndim > 1 else drawn)


def _pad_id(source: str, options: Mapping[str, Any], config: PreTrainedConfig) -> int:
    """The token that batches are padded with: what the tokenizer says, else what the config says, else EOS."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **{"trust_remote_code": False, **options})
    except Exception:  # weights alone, or files that the data's tokenizer will be refused for
        tokenizer = None
    text_config = config.get_text_config()
    for role in ("pad_token_id", "eos_token_id"):
        for holder in (tokenizer, text_config):
            token_id = getattr(holder, role, None)
            token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
            if isinstance(token_id, int) and 0 <= token_id < text_config.vocab_size:
                return token_id
    raise UserError(f"{source} names neither a padding token nor EOS: set pad_token_id in its config.json.")

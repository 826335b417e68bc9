"""Load two-class sequence classifiers for reranking, from a stored classifier or from a language model's trunk."""

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
"""Class 0 is a wrong solution, class 1 a correct one."""

_LM_HEADS = ("lm_head.", "embed_out.")


def load_classifier(
    name_or_path: str,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a two-class sequence classifier of ``transformers``, in eval mode and on the CPU.

    A causal language model, such as a run's ``hf/`` folder, contributes its trunk, with any adapters merged. Its LM head and
    value head are dropped, and a classification head is drawn at random.

    The model classifies a row at its last token that is not ``config.pad_token_id``, so pad batches with that token on the
    right. It is set to the tokenizer's padding token, or to EOS if there is none (rows must then not end in EOS).

    Args:
        name_or_path: Folder or hub id.
        dtype: Dtype of the weights.
        seed: Seeds a new head, identical in every dtype up to rounding. The global generator is not touched.
        attention: Attention implementation of ``transformers``; None means its default.
        trust_remote_code: Run Python code shipped with the model; its class must still be one of ``transformers``.

    Raises:
        UserError: The model is not found, the hub is unreachable, weights are unreadable or incomplete, the classifier does
            not have two classes, or the architecture has no classifier.
    """
    source, options, adapter = locate_weights(name_or_path, trust_remote_code)
    config = load_config(source, options)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(f"transformers has no sequence classifier for {name_or_path} ({config.model_type}): choose another.")
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if is_classifier and config.num_labels != CLASSES:
        raise UserError(
            f"{name_or_path} has {config.num_labels} classes and a reranker needs two (wrong, correct): name a classifier with "
            "two classes, or a language model to start from."
        )
    config.num_labels = CLASSES  # a language model's own value is meaningless
    stored = StoredWeights(source, options)
    with torch.random.fork_rng(devices=[]):  # transformers draws missing weights; ``_draw_head`` redraws them from the seed
        loaded = load_pretrained(AutoModelForSequenceClassification, stored, config, dtype, attention)
    model = loaded.model
    if adapter is not None:
        adapter.merge_into(model)
    refuse_not_finite(name_or_path, model)
    head = {name for name in loaded.missing if not name.startswith(f"{model.base_model_prefix}.")}
    absent = loaded.missing if is_classifier else loaded.missing - head
    if absent:
        raise UserError(
            f"{name_or_path} lacks weights of {type(model).__name__}, such as {min(absent)}: take a complete model."
        )
    refuse_unplaced(name_or_path, loaded, () if is_classifier else _LM_HEADS)
    if head:
        _draw_head(model, head, seed)
        logger.info("%s has no classification head: drawing one from seed %d", name_or_path, seed)
    model.config.pad_token_id = _pad_id(source, options, config)
    return model


def _draw_head(model: PreTrainedModel, names: Iterable[str], seed: int) -> None:
    """Draw matrices from the architecture's initial normal distribution and set biases to 0."""
    generator = torch.Generator().manual_seed(seed)
    settings = model.config.to_dict()
    std: float = settings.get("initializer_range") or settings.get("init_std") or 0.02
    for name in sorted(names):
        parameter = model.get_parameter(name)
        drawn = torch.zeros(parameter.shape)
        parameter.data.copy_(drawn.normal_(std=std, generator=generator) if drawn.ndim > 1 else drawn)


def _pad_id(source: str, options: Mapping[str, Any], config: PreTrainedConfig) -> int:
    """Return the padding token id of the tokenizer, else of the config; failing both, the EOS id in the same order.

    Raises:
        UserError: Neither names a padding or EOS token inside the vocabulary.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **{"trust_remote_code": False, **options})
    except Exception:  # no tokenizer here, or a broken one, which the data module reports
        tokenizer = None
    text_config = config.get_text_config()
    for role in ("pad_token_id", "eos_token_id"):
        for holder in (tokenizer, text_config):
            token_id = getattr(holder, role, None)
            token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
            if isinstance(token_id, int) and 0 <= token_id < text_config.vocab_size:
                return token_id
    raise UserError(f"{source} names neither a padding token nor EOS: set pad_token_id in its config.json.")

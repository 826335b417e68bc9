"""Digests that tell whether two runs met the same questions, and as the same tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from reft_pl.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def problems_digest(problems: Iterable[Problem]) -> str:
    """16 hexadecimal digits that stand for these problems in this order: ids, questions, answers, annotated solutions."""
    digest = blake2b(digest_size=8)
    for problem in problems:
        row = [problem.id, problem.question, problem.answer, problem.solution]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int] = ()) -> str:
    """16 hexadecimal digits that stand for all that makes token ids and text of each other.

    Vocabulary and rules (BOS or none among them), the ids that end a response, and the chat template.

    Args:
        tokenizer: With EOS.
        stop_ids: Ids that end a response; EOS may be among them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules: dict[str, Any] = json.loads(backend.to_str()) if backend else dict(tokenizer.get_vocab())
    if backend:  # how to cut and pad is no rule, but what the last call asked for
        rules |= {"truncation": None, "padding": None}
    further = sorted(set(stop_ids) - {tokenizer.eos_token_id})
    parts = [rules, tokenizer.eos_token_id, tokenizer.chat_template, *([further] if further else [])]
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()

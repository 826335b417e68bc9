"""Digests that show whether two runs used the same problems and the same tokenisation."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from reft_pl.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def problems_digest(problems: Iterable[Problem]) -> str:
    """Digest problems in order: ids, questions, answers, annotated solutions, columns. Returns 16 hexadecimal digits."""
    digest = blake2b(digest_size=8)
    for problem in problems:
        row: list[Any] = [problem.id, problem.question, problem.answer, problem.solution]
        if problem.columns:
            row.append(dict(problem.columns))
        digest.update(json.dumps(row, default=repr).encode() + b"\n")
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int] = ()) -> str:
    """Digest everything that maps between text and token ids. Returns 16 hexadecimal digits.

    The digest covers the vocabulary and rules (BOS included), the stop ids, and the chat template.

    Args:
        tokenizer: A tokenizer with an EOS token.
        stop_ids: Ids that end a response; may include EOS.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules: dict[str, Any] = json.loads(backend.to_str()) if backend else dict(tokenizer.get_vocab())
    if backend:  # truncation and padding only reflect the last call
        rules |= {"truncation": None, "padding": None}
    further = sorted(set(stop_ids) - {tokenizer.eos_token_id})
    parts = [rules, tokenizer.eos_token_id, tokenizer.chat_template, *([further] if further else [])]
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()

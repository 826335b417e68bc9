"""Compare a tokenizer's token ids with a model's: ids without a token, tokens without an embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from reft_pl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNUSUAL = "\U0010fffd\u0378"
"""Characters outside every vocabulary: a tokenizer without byte fallback maps them to its unknown token."""


class Vocabulary:
    """The token ids of one ``transformers`` tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def ids(self) -> frozenset[int]:
        """All ids that have a token."""
        return frozenset(self._tokenizer.get_vocab().values())

    def unused(self, vocab_size: int) -> tuple[tuple[int, int], ...]:
        """Return the ids below ``vocab_size`` without a token (LM head padding, gaps) as half-open ranges."""
        known = sorted(token_id for token_id in self.ids if token_id < vocab_size)
        starts, ends = [0, *(token_id + 1 for token_id in known)], [*known, vocab_size]
        return tuple((start, end) for start, end in zip(starts, ends, strict=True) if start < end)

    def check_embeddings(self, rows: int, source: str, used: Collection[int]) -> None:
        """Check that the model has an embedding for every id that can occur.

        Special tokens count only if they are ``used``: some tokenizer classes add the special tokens of their model family to
        every vocabulary.

        Args:
            rows: Number of ids with embeddings and logits in the model.
            source: Name of the model, for errors.
            used: Ids of the special tokens in use: those in prompts, padding, and stop ids.

        Raises:
            UserError: an id has no embedding.
        """
        lacking = [token_id for token_id in self._producible(rows, used) if token_id >= rows]
        if lacking:
            token_id = min(lacking)
            token = self._tokenizer.convert_ids_to_tokens(token_id)
            raise UserError(
                f"the tokenizer of {source} has the token {token!r} with the id {token_id}, but the model has embeddings for "
                f"{rows} ids: call model.resize_token_embeddings(len(tokenizer)) and save the model, or use its own tokenizer"
            )

    def _producible(self, rows: int, used: Collection[int]) -> Iterator[int]:
        yield from used
        special = {token_id for token_id, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        beyond = {token_id for token_id in self.ids if token_id >= rows}
        yield from beyond - special.union(self._tokenizer.all_special_ids)
        if beyond:
            unusual = self._tokenizer(_UNUSUAL, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            yield from unusual

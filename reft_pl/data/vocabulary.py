"""Token ids of a tokenizer against those of a model: ids without a token, and tokens without an embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from reft_pl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNUSUAL = "\U0010fffd\u0378"
"""Characters that no vocabulary has: a tokenizer without bytes turns them into its unknown token."""


class Vocabulary:
    """The token ids of one tokenizer.

    Args:
        tokenizer: Any tokenizer of ``transformers``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def ids(self) -> frozenset[int]:
        """Every id that has a token."""
        return frozenset(self._tokenizer.get_vocab().values())

    def unused(self, vocab_size: int) -> tuple[tuple[int, int], ...]:
        """The ids below ``vocab_size`` without a token, as half-open ranges: padding of an LM head, and gaps."""
        known = sorted(token_id for token_id in self.ids if token_id < vocab_size)
        starts, ends = [0, *(token_id + 1 for token_id in known)], [*known, vocab_size]
        return tuple((start, end) for start, end in zip(starts, ends, strict=True) if start < end)

    def check_embeddings(self, rows: int, source: str, used: Collection[int]) -> None:
        """Check that the model has an embedding for every id that can come up.

        Special tokens are written by name alone: some tokenizer classes add their family's to every vocabulary, and such a
        token matters only where it is used.

        Args:
            rows: Ids that the model has embeddings and logits for.
            source: The model, for errors.
            used: Ids of special tokens that are in use: of a prompt, of padding, and what ends a response.

        Raises:
            UserError: it has none for some id.
        """
        lacking = [token_id for token_id in self._producible(rows, used) if token_id >= rows]
        if lacking:
            token_id = min(lacking)
            token = self._tokenizer.convert_ids_to_tokens(token_id)
            raise UserError(
                f"the tokenizer of {source} has the token {token!r} with the id {token_id}, and the model has embeddings for "
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

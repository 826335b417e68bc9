"""Ids without a token are listed, and tokens without an embedding are rejected before training."""

import copy

import pytest

from reft_pl.data.codec import Codec
from reft_pl.data.vocabulary import Vocabulary
from reft_pl.errors import UserError
from reft_pl.formats import Chat, NaturalLanguage


@pytest.fixture
def grown(plain_tokenizer):
    """A copy of the tokenizer for tests that add tokens."""
    return copy.deepcopy(plain_tokenizer)


def check(tokenizer, rows: int) -> None:
    Codec(tokenizer, NaturalLanguage()).check_embeddings(rows, "models/x")


def test_unused_ids_are_gaps_and_head_padding(plain_tokenizer):
    size = len(plain_tokenizer)
    vocabulary = Vocabulary(plain_tokenizer)
    assert vocabulary.unused(size) == ()
    assert vocabulary.unused(size + 7) == ((size, size + 7),)
    vocabulary.ids = frozenset({1, 2, 5})  # type: ignore[misc]
    assert vocabulary.unused(8) == ((0, 1), (3, 5), (6, 8))
    assert vocabulary.unused(4) == ((0, 1), (3, 4))


def test_tokens_with_embeddings_pass(plain_tokenizer):
    check(plain_tokenizer, len(plain_tokenizer))
    check(plain_tokenizer, len(plain_tokenizer) + 64)


@pytest.mark.parametrize("added", ["<think>", " pens", "\u20ac"])
def test_an_added_token_without_an_embedding_is_one_sentence(added, grown):
    rows = len(grown)
    grown.add_tokens([added])
    with pytest.raises(UserError, match=f"models/x has the token .* with the id {rows}, .* embeddings for {rows} ids"):
        check(grown, rows)
    check(grown, rows + 1)


@pytest.mark.parametrize("role", ["pad_token", "eos_token"])
def test_a_special_token_in_use_needs_an_embedding(role, grown):
    rows = len(grown)
    grown.add_special_tokens({role: "[NEW]"})
    with pytest.raises(UserError, match=r"'\[NEW\]'"):
        check(grown, rows)


def test_an_unused_special_token_needs_no_embedding(grown):
    rows = len(grown)
    grown.add_special_tokens({"additional_special_tokens": ["<fill>"]})
    check(grown, rows)
    Codec(grown, NaturalLanguage(), stop_ids=[rows - 1]).check_embeddings(rows, "models/x")
    with pytest.raises(UserError, match="<fill>"):
        Codec(grown, NaturalLanguage(), stop_ids=[rows]).check_embeddings(rows, "models/x")


@pytest.mark.parametrize("template", ["<fill>{{ messages[0].content }}", "{{ messages[0].content }}<fill>"])
def test_a_special_token_of_the_chat_template_needs_an_embedding(template, grown):
    rows = len(grown)
    grown.add_special_tokens({"additional_special_tokens": ["<fill>"]})
    grown.chat_template = template
    with pytest.raises(UserError, match="<fill>"):
        Codec(grown, Chat()).check_embeddings(rows, "models/x")


def test_a_base_vocabulary_larger_than_the_model(plain_tokenizer):
    with pytest.raises(UserError, match="embeddings for 300 ids"):
        check(plain_tokenizer, 300)

from pathlib import Path

import pytest
from transformers import LlamaConfig, PreTrainedTokenizerFast

from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError


def save_bare(plain_tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """A tokenizer that names no special token, as Galactica's."""
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer.backend_tokenizer).save_pretrained(folder)
    return folder


def test_special_tokens_come_from_the_models_config_where_the_tokenizer_names_none(plain_tokenizer, tmp_path):
    folder = save_bare(plain_tokenizer, tmp_path)
    LlamaConfig(eos_token_id=2, pad_token_id=1).save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1)


def test_a_tokenizers_own_special_tokens_stand(plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    other = (plain_tokenizer.eos_token_id + 1) % len(plain_tokenizer)
    LlamaConfig(eos_token_id=other).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token_id == plain_tokenizer.eos_token_id


@pytest.mark.parametrize("eos", [10**6, None])
def test_an_id_outside_the_vocabulary_is_no_token(eos, plain_tokenizer, tmp_path):
    folder = save_bare(plain_tokenizer, tmp_path)
    LlamaConfig(eos_token_id=eos).save_pretrained(folder)
    assert load_tokenizer(str(folder)).eos_token_id is None


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no tokenizer could be loaded from"):
        load_tokenizer(str(tmp_path))

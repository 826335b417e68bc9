import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, PreTrainedTokenizerFast

from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.formats import Chat
from reft_pl.types import Problem


def save_bare(plain_tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Save a tokenizer without named special tokens, like Galactica's."""
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer.backend_tokenizer).save_pretrained(folder)
    return folder


def test_special_tokens_default_to_those_of_the_models_config(plain_tokenizer, tmp_path):
    folder = save_bare(plain_tokenizer, tmp_path)
    LlamaConfig(eos_token_id=2, pad_token_id=1).save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1)


def test_a_tokenizers_own_special_tokens_take_precedence(plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    other = (plain_tokenizer.eos_token_id + 1) % len(plain_tokenizer)
    LlamaConfig(eos_token_id=other).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token_id == plain_tokenizer.eos_token_id


@pytest.mark.parametrize("eos", [10**6, None])
def test_an_id_outside_the_vocabulary_is_not_a_token(eos, plain_tokenizer, tmp_path):
    folder = save_bare(plain_tokenizer, tmp_path)
    LlamaConfig(eos_token_id=eos).save_pretrained(folder)
    assert load_tokenizer(str(folder)).eos_token_id is None


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no tokenizer could be loaded from"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("kind", ["CodeLlamaTokenizer", "GemmaTokenizer", "LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer"])
def test_an_empty_tokenizer_is_one_sentence(kind, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"turns 'Ann has 12 pens.*' into .*tokenizer\.json is missing"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_of_the_wrong_class_is_one_sentence(plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(UserError, match="tokenizer_class is wrong"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "5", "version https://git-lfs.github.com/spec/v1\n"])
def test_broken_files_are_one_sentence(file, content, plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=r"no tokenizer could be loaded from|is an empty file|is a Git LFS pointer") as raised:
        load_tokenizer(str(tmp_path))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ([{"nam": "rag"}], "no tokenizer could be loaded"),
        (["x"], "no tokenizer could be loaded"),
        ({"default": None}, "chat template 'default' .* is None, not text"),
        ({"default": "x", "rag": 5}, "chat template 'rag' .* is 5, not text"),
        ({"default": "x", "../y": "z"}, "is named '../y', which is no file name"),
        (5, "is 5, not text"),
        (False, "is False, not text"),
    ],
)
def test_chat_templates_that_could_not_be_exported_are_one_sentence(template, sentence, plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    with pytest.raises(UserError, match=sentence):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("content", [b"\xff", b""])
def test_an_invalid_chat_template_file(content, plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(content)
    with pytest.raises(UserError, match=r"no tokenizer could be loaded|no chat template"):
        Codec(load_tokenizer(str(tmp_path)), Chat())


def test_named_templates_in_a_list_and_in_files(plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    named = [{"name": "default", "template": "<{{ messages[0].content }}>"}, {"name": "rag", "template": "x"}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": named}))
    problem = Problem("p", "Hi?", None)
    assert Codec(load_tokenizer(str(tmp_path)), Chat(instruction="")).prompt_text(problem) == "<Hi?>"
    load_tokenizer(str(tmp_path)).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "chat_template.jinja").is_file()
    assert Codec(load_tokenizer(str(tmp_path / "again")), Chat(instruction="")).prompt_text(problem) == "<Hi?>"

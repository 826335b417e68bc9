"""Stop ids from the model's files, the tokenizer and the chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from reft_pl.data.codec import Codec
from reft_pl.data.identity import tokenizer_digest
from reft_pl.data.stop_ids import load_stop_ids
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.formats import Chat, CoTFormat, NaturalLanguage
from reft_pl.types import Problem

PENS = Problem("pens", "Ann has 2 pens. How many?", 2.0, "It is \\boxed{2}.")
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}END{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def write(folder: Path, **files: Any) -> str:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ()),
        ({"generation_config": {"eos_token_id": 7}}, (7,)),
        ({"generation_config": {"eos_token_id": [7, 9]}, "config": {"eos_token_id": 9}}, (7, 9)),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": [3]}}, (3,)),
        ({"config": {"eos_token_id": [3], "text_config": {"eos_token_id": 4}}}, (3, 4)),
        ({"config": {"model_type": "llama"}}, ()),  # the class's default, 2, may be any token
    ],
)
def test_the_union_of_generation_config_and_config(files, expected, tmp_path):
    assert load_stop_ids(write(tmp_path, **files)) == expected


def test_adapters_have_the_ids_of_their_base(tmp_path):
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    base.mkdir()
    adapters.mkdir()
    write(base, generation_config={"eos_token_id": [7, 9]})
    assert load_stop_ids(write(adapters, adapter_config={"base_model_name_or_path": str(base)})) == (7, 9)
    gone = write(adapters, adapter_config={"base_model_name_or_path": str(adapters)}, generation_config={"eos_token_id": 5})
    assert load_stop_ids(gone) == (5,)


@pytest.mark.parametrize("name", ["generation_config", "config"])
@pytest.mark.parametrize(
    "content", ["{", "[]", '{"eos_token_id": "</s>"}', '{"eos_token_id": [1, null]}', '{"eos_token_id": 2.0}']
)
def test_files_with_invalid_ids_are_one_sentence(name, content, tmp_path):
    with pytest.raises(UserError, match=f"{name}.json"):
        load_stop_ids(write(tmp_path, **{name: content}))


def codec_of(tokenizer: PreTrainedTokenizerFast, form: CoTFormat, stop_ids: tuple[int, ...] = ()) -> Codec:
    return Codec(tokenizer, form, 200, 300, stop_ids=stop_ids)


def test_a_response_ends_at_any_stop_id(plain_tokenizer):
    eos, other = plain_tokenizer.eos_token_id, plain_tokenizer.convert_tokens_to_ids("<|im_start|>")
    codec = codec_of(plain_tokenizer, NaturalLanguage(), (other, -1, 10**9))
    assert codec.stop_ids == (eos, other), "ids without a token are left out"
    text = plain_tokenizer("so 2").input_ids
    for end in codec.stop_ids:
        assert codec.response_text(PENS, [*text, end, *text]) == "so 2"
    assert codec.response_text(PENS, text) == "so 2"


@pytest.mark.parametrize("chat_tokenizer", ["qwen2"], indirect=True)
@pytest.mark.parametrize(
    ("written", "token"),
    [
        ("<|endoftext|>\n", "<|endoftext|>"),
        (" <|endoftext|><|im_end|>", "<|endoftext|>"),
        ("\n<|im_end|>\n", "<|im_end|>"),
        ("", "<|im_end|>"),
        ("\n### User:", "<|im_end|>"),
        ("{{ raise_exception('no') if m.role == 'assistant' }}", "<|im_end|>"),
    ],
)
def test_a_chats_answer_ends_with_its_end_of_turn(written, token, chat_tokenizer, monkeypatch):
    monkeypatch.setattr(chat_tokenizer, "chat_template", TURNS.replace("END", written) + PROMPT)
    codec = codec_of(chat_tokenizer, Chat())
    end = chat_tokenizer.convert_tokens_to_ids(token)
    assert codec.example(PENS).ids[-1] == end
    assert codec.stop_ids == tuple(dict.fromkeys([end, chat_tokenizer.eos_token_id]))
    assert codec_of(chat_tokenizer, NaturalLanguage()).eos_id == chat_tokenizer.eos_token_id, "no template, no turns"


@pytest.mark.parametrize("chat_tokenizer", ["qwen2"], indirect=True)
def test_the_end_of_turn_of_a_template_that_expects_parts(chat_tokenizer, monkeypatch):
    parts = TURNS.replace("{{ m.content }}", "{% for c in m.content %}{{ c.text }}{% endfor %}").replace("END", "<|endoftext|>")
    monkeypatch.setattr(chat_tokenizer, "chat_template", parts + PROMPT)
    assert codec_of(chat_tokenizer, Chat()).eos_id == chat_tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_a_tokenizer_without_eos_takes_the_first_id_of_a_list(plain_tokenizer, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer.backend_tokenizer).save_pretrained(tmp_path)
    write(tmp_path, generation_config={"eos_token_id": [10**6, 1, 0]})
    assert load_tokenizer(str(tmp_path)).eos_token_id == 1


def test_samples_of_other_stop_ids_are_other_samples(plain_tokenizer):
    eos = plain_tokenizer.eos_token_id
    assert tokenizer_digest(plain_tokenizer, (eos,)) == tokenizer_digest(plain_tokenizer)
    assert tokenizer_digest(plain_tokenizer, (eos, 5)) != tokenizer_digest(plain_tokenizer)

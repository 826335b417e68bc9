"""The embedded model's folder loads like any other, and its tokenizer round-trips texts."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from reft_pl.data.stories.make_tokenizer import main, texts
from reft_pl.data.stories.source import StorySource

FOLDER = Path(__file__).parents[3] / "configs" / "models" / "tiny_llama"


def test_the_folder_loads_and_fits_together() -> None:
    tokenizer, config = AutoTokenizer.from_pretrained(FOLDER), AutoConfig.from_pretrained(FOLDER)
    assert config.vocab_size == len(tokenizer)
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert special == (config.pad_token_id, config.bos_token_id, config.eos_token_id)
    assert len(set(special)) == 3
    assert not list(FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("split", ["train", "unseen"])
def test_texts_round_trip_exactly(split: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    for problem in StorySource(split, 200).load():  # type: ignore[arg-type]
        ids = tokenizer(problem.solution).input_ids
        assert tokenizer.decode(ids) == problem.solution
        assert not set(ids) & set(tokenizer.all_special_ids)


def test_bytes_that_no_story_has_come_back_too() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    text = "caf\u00e9 \u4e2d \U0001f600 \t x_1"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_numbers_are_spelt_in_digits() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    for number in (7, 42, 305):
        assert [tokenizer.decode([i]).strip() for i in tokenizer(f" {number}").input_ids] == list(str(number))


@pytest.mark.slow
def test_the_folder_can_be_made_again(tmp_path: Path) -> None:
    main(tmp_path)
    for name in ("tokenizer.json", "config.json"):
        made, kept = (json.loads((folder / name).read_text()) for folder in (tmp_path, FOLDER))
        made.pop("transformers_version", None)
        kept.pop("transformers_version", None)
        assert made == kept


def test_the_tokenizer_learns_from_training_texts_only() -> None:
    assert [text.split("\n")[1] for text in texts(3)] == [problem.question for problem in StorySource("train", 3).load()]

"""A model folder's own settings neither reach the export nor break it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.models.classifier import load_classifier
from reft_pl.models.export import check_export, export_folder
from reft_pl.models.loading import load_policy
from reft_pl.models.reranker import Reranker, export_reranker
from reft_pl.models.settings import PolicySettings

GENERATION: list[dict[str, Any]] = [
    {"bos_token_id": 1, "eos_token_id": 2, "max_length": 4096, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6},
    {"do_sample": False, "temperature": 1e-6},
    {"early_stopping": True, "length_penalty": 0.8},
    {"top_k": 1},
    {"output_scores": True},
    {"return_dict_in_generate": False, "output_attentions": True},
    {"pad_token_id": -1},
    {"bos_token_id": -1, "eos_token_id": [2, 3]},
    {"num_beams": 1, "num_return_sequences": 4},
    {"max_new_tokens": 5, "max_length": 3, "min_length": 9},
    {"cache_implementation": "static", "typical_p": 0.5, "unknown_setting": {"a": [1]}},
]
CONFIG: list[dict[str, Any]] = [
    {"temperature": 0.7, "top_k": 1, "do_sample": False, "max_length": 20, "num_beams": 1, "length_penalty": 2.0},
    {"pad_token_id": -1},
    {"bos_token_id": -1},
    {"output_scores": True, "return_dict_in_generate": False, "task_specific_params": {"text-generation": {"top_k": 1}}},
    {"torch_dtype": "float16", "transformers_version": "4.0.0", "_name_or_path": "/models/base", "use_cache": False},
]
TOKENIZER: list[dict[str, Any]] = [
    {"model_max_length": 1000000000000000019884624838656, "padding_side": "left", "truncation_side": "left"},
    {"name_or_path": None, "special_tokens_map_file": "/gone", "tokenizer_file": "/gone", "unknown": {"a": [1]}},
    {"clean_up_tokenization_spaces": None, "model_input_names": ["input_ids"], "legacy": False},
]


@pytest.fixture
def folder(micro_model: Path, tmp_path: Path) -> Path:
    """The micro model with weights."""
    source = tmp_path / "source"
    shutil.copytree(micro_model, source)
    torch.manual_seed(1)
    lm = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32")).lm
    lm.save_pretrained(source)
    return source


def merge_json(file: Path, changes: dict[str, Any]) -> None:
    there = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(there | changes))


def check_exports(source: Path, out: Path) -> None:
    """Language model and classifier are exported, and load with greedy decoding."""
    tokenizer = load_tokenizer(str(source))
    policy = load_policy(PolicySettings(str(source), dtype="float32"))
    check_export(str(source), lambda there: export_folder(policy, tokenizer, there, {"max_tokens": 32}, weights=False))
    export_folder(policy, tokenizer, out / "hf", {"max_tokens": 32})
    written = GenerationConfig.from_pretrained(out / "hf")
    assert (written.do_sample, written.max_length, written.temperature, written.top_k) == (False, 32, None, None)
    assert written.eos_token_id == tokenizer.eos_token_id
    again = AutoModelForCausalLM.from_pretrained(out / "hf", dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), policy.lm.parameters(), strict=True))
    reranker = Reranker(load_classifier(str(source), torch.float32))
    export_reranker(reranker, tokenizer, out / "reranker", {})
    assert (out / "reranker" / "model.safetensors").is_file()


@pytest.mark.parametrize("settings", GENERATION, ids=" ".join)
def test_generation_settings(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps(settings))
    check_exports(folder, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '"text"'])
def test_invalid_generation_settings_are_ignored(content: str, folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").write_text(content)
    check_exports(folder, tmp_path)


@pytest.mark.parametrize("settings", CONFIG, ids=" ".join)
def test_settings_of_the_config(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    merge_json(folder / "config.json", settings)
    check_exports(folder, tmp_path)


@pytest.mark.parametrize("settings", TOKENIZER, ids=" ".join)
def test_settings_of_the_tokenizer(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    merge_json(folder / "tokenizer_config.json", settings)
    check_exports(folder, tmp_path)


def test_an_impossible_export_is_refused_before_training(folder: Path) -> None:
    policy, tokenizer = load_policy(PolicySettings(str(folder))), load_tokenizer(str(folder))
    with pytest.raises(UserError, match=r"could not be exported .*TypeError") as refused:
        check_export("it", lambda there: export_folder(policy, tokenizer, there, {"stage": object()}, weights=False))
    assert "\n" not in str(refused.value)

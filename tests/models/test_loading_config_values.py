"""Values of the wrong type in ``config.json``, for every loader of model folders."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GPT2Config, LlamaConfig, LlamaForCausalLM

from reft_pl.cli.memory_settings import shape_of
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.models.activations import empty_model
from reft_pl.models.classifier import load_classifier
from reft_pl.models.config_values import refuse_values
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings

LLAMA = LlamaConfig(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)

CHANGES: list[dict[str, Any]] = [
    {"pad_token_id": [0]}, {"num_hidden_layers": "3"}, {"vocab_size": None}, {"hidden_size": None}, {"rms_norm_eps": "1e-5"},
    {"num_attention_heads": 0}, {"hidden_size": -32}, {"rope_parameters": "linear"}, {"rope_parameters": {"rope_type": 5}},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": "10000", "factor": "2"}}, {"hidden_act": 7},
    {"hidden_act": "nope"},
    {"vocab_size": 61.5}, {"model_type": ["llama"]}, {"dtype": "floaty"}, {"quantization_config": 5}, {"pad_token_id": 999},
    {"id2label": 5}, {"text_config": 5}, {"eos_token_id": "2"}, {"max_position_embeddings": None},
]  # fmt: skip


def folder_with(change: dict[str, Any], folder: Path, config: Any = LLAMA) -> Path:
    config.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return folder


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_policy_is_refused_in_one_sentence(change: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_with(change, tmp_path)
    with pytest.raises(UserError) as caught:
        load_policy(PolicySettings(str(folder), from_scratch=True, dtype="float32"))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
NUMBERS: list[dict[str, Any]] = [
    *({"rope_theta": value} for value in (0, -1.0, math.nan, math.inf, "10000", [1])),
    *({"rope_parameters": ROPE | {"rope_theta": value}} for value in (0, -1.0, math.nan, math.inf, "10000")),
    *({"rope_parameters": ROPE | {"rope_type": "linear", "factor": value}} for value in (0, -2.0, math.nan, "2")),
    *({"rope_scaling": {"rope_type": "linear", "factor": value}} for value in (0, -2.0, math.nan)),
    *({"rope_parameters": ROPE | {"partial_rotary_factor": value}} for value in (0, math.nan, "0.5")),
    *({"rms_norm_eps": value} for value in (math.nan, -1e-5, math.inf)),
    *({"attention_dropout": value} for value in (-1.0, 2.0, math.nan)),
    *({"max_position_embeddings": value} for value in (0, -5)),
]


@pytest.mark.parametrize("change", NUMBERS, ids=str)
def test_a_number_that_makes_no_sense_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    """Several of them would compute NaN, or attention without positions, and train on it."""
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    settings = json.loads(file.read_text())
    if not change.keys() & {"rope_parameters"}:
        settings.pop("rope_parameters", None)  # the former name is read only without the present one
    file.write_text(json.dumps(settings | change))
    (key,) = change
    section = change[key] if isinstance(change[key], dict) else change
    wrong = next(name for name in reversed(section) if name != "rope_type")
    for load in (
        lambda: load_policy(PolicySettings(str(tmp_path), dtype="float32")),
        lambda: load_policy(PolicySettings(str(tmp_path), from_scratch=True, dtype="float32")),
        lambda: load_classifier(str(tmp_path)),
        lambda: empty_model(shape_of(str(tmp_path), None), torch.float32),
    ):
        with pytest.raises(UserError, match=rf"config\.json cannot be used \(.*{wrong}.*\): correct this value"):
            load()


def test_defaults_of_every_decoder_pass() -> None:
    for config_class in MODEL_FOR_CAUSAL_LM_MAPPING:
        with suppress(ImportError, StrictDataclassError):  # some need packages or parts
            config = config_class()
            refuse_values("x", config)


@pytest.mark.parametrize("change", CHANGES[:6], ids=str)
def test_every_other_reader_of_the_folder_refuses(change: dict[str, Any], tmp_path: Path) -> None:
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    folder_with(change, tmp_path)
    for load in (
        lambda: load_policy(PolicySettings(str(tmp_path), dtype="float32")),
        lambda: load_classifier(str(tmp_path)),
        lambda: load_tokenizer(str(tmp_path)),
        lambda: empty_model(shape_of(str(tmp_path), None), torch.float32),
    ):
        with pytest.raises(UserError):
            load()


@pytest.mark.parametrize("change", [{"pad_token_id": [0]}, {"num_hidden_layers": "3"}, {"num_attention_heads": 7}], ids=str)
def test_the_error_does_not_blame_the_tokenizer(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/config\.json cannot be used"):
        load_tokenizer(str(folder_with(change, tmp_path)))


@pytest.mark.parametrize("change", [{"vocab_size": 60}, {"num_key_value_heads": 1}], ids=str)
def test_weights_of_other_shapes(change: dict[str, Any], tmp_path: Path) -> None:
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    folder_with(LLAMA.to_diff_dict() | change, tmp_path)
    with pytest.raises(UserError, match=r"have other shapes than its config\.json gives"):
        load_policy(PolicySettings(str(tmp_path), dtype="float32"))


@pytest.mark.parametrize(
    "change", [{"n_embd": "32"}, {"n_layer": None}, {"layer_norm_epsilon": "x"}, {"pad_token_id": [0]}], ids=str
)
def test_other_architectures(change: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_with(change, tmp_path, GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    with pytest.raises(UserError, match=next(iter(change))):
        load_policy(PolicySettings(str(folder), from_scratch=True, dtype="float32"))


@pytest.mark.parametrize("text", ["5", "null", "[]", '"x"'])
def test_a_config_that_is_not_an_object(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_policy(PolicySettings(str(tmp_path), from_scratch=True, dtype="float32"))

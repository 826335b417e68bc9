"""Files that a download left as a Git LFS pointer, as a web page, empty or cut: one sentence that names file and remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.models.classifier import load_classifier
from reft_pl.models.gguf import import_gguf
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings
from reft_pl.resources import find

LLAMA = LlamaConfig(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 134217728\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"
DAMAGE = [(POINTER, r"a Git LFS pointer: run `git lfs pull`"), (PAGE, "a web page: download"), (b"", "an empty file: download")]
LOADERS: list[Callable[[Path], object]] = [
    lambda folder: load_policy(PolicySettings(str(folder), dtype="float32"), "shared"),
    lambda folder: load_classifier(str(folder)),
]


def sentence(load: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    return tmp_path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("content", "what"), DAMAGE, ids=["pointer", "page", "empty"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_a_model(name: str, content: bytes, what: str, whole: Path) -> None:
    (whole / name).write_bytes(content)
    for load in LOADERS:
        assert f"{whole}/{name} is {what}" in sentence(lambda load=load: load(whole))


@pytest.mark.parametrize(("content", "what"), DAMAGE, ids=["pointer", "page", "empty"])
@pytest.mark.parametrize("index", [True, False], ids=["index", "shard"])
def test_a_file_of_a_sharded_model(index: bool, content: bytes, what: str, sharded: Path) -> None:
    file = sharded / "model.safetensors.index.json" if index else sorted(sharded.glob("model-*.safetensors"))[1]
    file.write_bytes(content)
    for load in LOADERS:
        assert f"{file} is {what}" in sentence(lambda load=load: load(sharded))


@pytest.mark.parametrize(("content", "what"), DAMAGE, ids=["pointer", "page", "empty"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "value_head.safetensors"])
def test_a_pickle_and_a_value_head(name: str, content: bytes, what: str, whole: Path) -> None:
    if name.endswith(".bin"):
        (whole / "model.safetensors").unlink()
    (whole / name).write_bytes(content)
    assert f"{whole}/{name} is {what}" in sentence(lambda: LOADERS[0](whole))


@pytest.mark.parametrize(("content", "what"), DAMAGE, ids=["pointer", "page", "empty"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters(name: str, content: bytes, what: str, whole: Path, tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": str(whole)}
    (adapters / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"x": torch.zeros(1)}, adapters / "adapter_model.safetensors")
    (adapters / name).write_bytes(content)
    assert f"{adapters}/{name} is {what}" in sentence(lambda: LOADERS[0](adapters))


@pytest.mark.parametrize(("content", "what"), DAMAGE, ids=["pointer", "page", "empty"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_tokenizer(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    for file in Path(find("configs/models/tiny_llama")).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes(content)
    assert f"{tmp_path}/{name} is {what}" in sentence(lambda: load_tokenizer(str(tmp_path)))


def test_a_vocabulary_that_is_a_pointer_is_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(POINTER)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert f"{tmp_path}/vocab.txt is a Git LFS pointer" in sentence(lambda: load_tokenizer(str(tmp_path)))


@pytest.mark.parametrize(("content", "what"), DAMAGE, ids=["pointer", "page", "empty"])
def test_a_gguf_file(content: bytes, what: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert f"{file} is {what}" in sentence(lambda: import_gguf(str(file), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "what"), DAMAGE[:2], ids=["pointer", "page"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_data_file(suffix: str, content: bytes, what: str, tmp_path: Path) -> None:
    file = tmp_path / f"train.{suffix}"
    file.write_bytes(content)
    assert f"{file} is {what}" in sentence(HFDatasetSource(str(file)).load)


@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_a_file_that_is_cut(kept: float, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LLAMA)
    model.save_pretrained(tmp_path / "safe")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (tmp_path / "pickle").mkdir()
    model.config.save_pretrained(tmp_path / "pickle")
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    for file in [
        *(tmp_path / "safe").glob("*.safetensors"),
        *(tmp_path / "shards").glob("*-00002-*"),
        *tmp_path.rglob("*.bin"),
    ]:
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
        for load in LOADERS:
            reported = sentence(lambda load=load, file=file: load(file.parent))
            assert "because a file is broken" in reported
            assert "download it again" in reported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metadata": None},
            'model.safetensors.index.json has no metadata, which transformers needs: add "metadata": {} to it',
        ),
        ({"weight_map": None}, "model.safetensors.index.json has no weight_map"),
        ({"weight_map": {"lm_head.weight": 5}}, "model.safetensors.index.json has no weight_map"),
    ],
)
def test_an_index_that_lacks_a_part(change: dict[str, object], message: str, sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text()) | change
    index.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    for load in LOADERS:
        reported = sentence(lambda load=load: load(sharded))
        assert f"{sharded}/{message}" in reported
        assert "config.json" not in reported


def test_a_shard_that_is_missing(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    for load in LOADERS:
        reported = sentence(lambda load=load: load(sharded))
        assert f"{sharded} lacks {shard.name}, one of " in reported
        assert "download all of them" in reported


def test_placeholders_that_nothing_reads_harm_nothing(whole: Path) -> None:
    for name in ("training_args.bin", "tokenizer.model", "model.gguf"):
        (whole / name).write_bytes(POINTER)
    LOADERS[0](whole)

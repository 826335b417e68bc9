"""Model folders in the layouts published by the paper's authors: every weight loads into its place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram
from reft_pl.models.export import export_folder
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.models.value_file import VALUE_FILE
from tests.payload import Payload

Published = Callable[..., dict[str, torch.Tensor]]
LAYOUTS = ["bin", "bin shards", "safetensors", "safetensors shards"]
FAMILIES = ["codellama", "galactica"]


def load(folder: Path, value: str = "none", **settings: object) -> Policy:
    return load_policy(PolicySettings(init_from=str(folder), **settings), value)


def assert_same_weights(policy: Policy, weights: dict[str, torch.Tensor]) -> None:
    """Exactly the stored weights load, bitwise in bfloat16."""
    own = policy.lm.state_dict()
    assert own.keys() == {name for name in weights if not name.startswith("v_head.")}
    assert all(torch.equal(own[name], weights[name]) for name in own)


def assert_value_head(policy: Policy, weights: dict[str, torch.Tensor]) -> None:
    assert torch.equal(policy.value_head.weight, weights["v_head.summary.weight"].float())
    assert torch.equal(policy.value_head.bias, weights["v_head.summary.bias"].float())


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("head", ["lm", "value"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_arrives(family, head, layout, wrapped, publish, tmp_path):
    weights = publish(tmp_path, family, head, layout, wrapped=wrapped)
    assert_same_weights(load(tmp_path), weights)
    policy = load(tmp_path, "shared")
    assert_same_weights(policy, weights)
    if head == "value":
        assert_value_head(policy, weights)
    else:
        assert not policy.value_head.weight.any()
        assert not policy.value_head.bias.any()


def test_values_are_those_of_trl(publish, tmp_path):
    """TRL's head reads the last hidden state, after the final norm."""
    weights = publish(tmp_path, "galactica", "value")
    policy = load(tmp_path, "shared", dtype="float32")
    ids = torch.tensor([[5, 9, 40, 41, 17]])
    states = policy.lm(ids, output_hidden_states=True).hidden_states[-1]
    expected = states @ weights["v_head.summary.weight"].float().T + weights["v_head.summary.bias"].float()
    actual = policy.state_values(policy.hidden_states(ids, torch.ones_like(ids, dtype=torch.bool)))
    torch.testing.assert_close(actual, expected.squeeze(-1), rtol=1e-5, atol=1e-6)


def test_a_separate_value_model_starts_from_the_same_head(publish, tmp_path):
    weights = publish(tmp_path, "codellama", "value")
    policy = load(tmp_path, "separate")
    assert_value_head(policy, weights)
    assert torch.equal(policy.value_trunk.state_dict()["norm.weight"], weights["model.norm.weight"])


def test_our_value_file_takes_precedence(publish, tmp_path):
    publish(tmp_path, "codellama", "value")
    own = {"value_head.weight": torch.full((1, 32), 3.0), "value_head.bias": torch.tensor([-1.0])}
    save_file(own, tmp_path / VALUE_FILE, metadata={"value": "shared"})
    policy = load(tmp_path, "shared")
    assert torch.equal(policy.value_head.weight, own["value_head.weight"])
    assert torch.equal(policy.value_head.bias, own["value_head.bias"])


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_the_export_has_plain_names_and_no_trl_head(wrapped, publish, tmp_path):
    weights = publish(tmp_path / "theirs", "codellama", "value", wrapped=wrapped)
    policy = load(tmp_path / "theirs", "shared")
    export_folder(policy, load_tokenizer(str(tmp_path / "theirs")), tmp_path / "ours", {"max_tokens": 64})
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == policy.lm.state_dict().keys()
    again = load(tmp_path / "ours", "shared")
    assert_same_weights(again, weights)
    assert_value_head(again, weights)


def test_an_unknown_value_head_is_logged(publish, tmp_path, caplog):
    publish(tmp_path, "codellama", "lm", "safetensors")
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"v_head.0.weight": torch.ones(64, 32)}, file, metadata={"format": "pt"})
    assert not load(tmp_path, "shared").value_head.weight.any()
    assert "a value head in a layout that reft-pl does not support" in caplog.text


def test_a_value_head_of_another_width_is_refused(publish, tmp_path):
    publish(tmp_path, "codellama", "value", "safetensors")
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"v_head.summary.weight": torch.ones(1, 8)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not fit its model"):
        load(tmp_path, "shared")
    load(tmp_path)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_a_missing_trunk_weight_is_refused(wrapped, publish, tmp_path):
    publish(tmp_path, "codellama", "value", "safetensors", wrapped=wrapped)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors[("pretrained_model." if wrapped else "") + "model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights of a language model, such as model\.layers\.1\.mlp\.up_proj\.weight"):
        load(tmp_path)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_an_unused_weight_is_refused(wrapped, publish, tmp_path):
    publish(tmp_path, "galactica", "value", wrapped=wrapped)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(UserError, match=r"OPTForCausalLM has no place for, such as model\.decoder\.layers\.1\."):
        load(tmp_path)


def test_an_untied_lm_head_is_kept_although_the_config_ties_it(publish, tmp_path):
    weights = publish(tmp_path / "theirs", "galactica", "lm", "bin")
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    torch.save(weights, tmp_path / "theirs" / "pytorch_model.bin")
    policy = load(tmp_path / "theirs")
    assert_same_weights(policy, weights)
    export_folder(policy, load_tokenizer(str(tmp_path / "theirs")), tmp_path / "ours", {"max_tokens": 64})
    assert_same_weights(load(tmp_path / "ours"), weights)


def test_a_classifier_with_tied_embeddings_is_not_a_policy(publish, tmp_path):
    """No language model weight is missing, because the LM head is tied to the embeddings."""
    publish(tmp_path, "galactica", "classes")
    with pytest.raises(UserError, match=r"has no place for, such as score\.weight"):
        load(tmp_path)


def test_constants_of_earlier_versions_are_not_weights(publish, tmp_path):
    weights = publish(tmp_path, "codellama", "lm", "safetensors")
    file = tmp_path / "model.safetensors"
    constants = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.layers.0.attn.masked_bias": torch.ones(1),
    }
    save_file(load_file(file) | constants, file, metadata={"format": "pt"})
    assert_same_weights(load(tmp_path), weights)


def test_a_missing_shard_is_one_sentence(publish, tmp_path):
    publish(tmp_path, "codellama", "value")
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UserError, match=rf"{tmp_path} lacks pytorch_model-00002-of-00002\.bin, one of 2 files that "):
        load(tmp_path, "shared")


@pytest.mark.parametrize(
    ("text", "what"), [("{", "is not JSON"), ("[]", "has no weight_map"), ('{"metadata": {}}', "has no weight_map")]
)
def test_a_broken_index_is_one_sentence(text, what, publish, tmp_path):
    publish(tmp_path, "codellama")
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(UserError, match=rf"{tmp_path}/pytorch_model\.bin\.index\.json {what}.*: download it again"):
        load(tmp_path)


def test_names_that_collide_without_the_prefix_are_refused(publish, tmp_path):
    publish(tmp_path, "codellama", "lm", "safetensors")
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"pretrained_model.lm_head.weight": torch.ones(400, 32)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="both with and without"):
        load(tmp_path)


@pytest.mark.parametrize("layout", ["bin", "bin shards"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(layout, publish, tmp_path):
    publish(tmp_path, "codellama", "value", layout)
    file = sorted(tmp_path.glob("*.bin"))[-1]
    torch.save({"v_head.summary.weight": Payload(os.mkdir, str(tmp_path / "ran"))}, file)
    with pytest.raises(UserError, match="could run code") as caught:
        load(tmp_path, "shared")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_legacy_pickle_format_is_read(publish, tmp_path):
    weights = publish(tmp_path, "codellama", "value", "bin", wrapped=True)
    file = tmp_path / "pytorch_model.bin"
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    policy = load(tmp_path, "shared")
    assert_same_weights(policy, weights)
    assert_value_head(policy, weights)


@pytest.mark.parametrize(("family", "bos"), [("codellama", 1), ("galactica", None)])
def test_padding_is_id_1_and_eos_id_2(family, bos, publish, tmp_path):
    publish(tmp_path, family)
    tokenizer = load_tokenizer(str(tmp_path))
    codec = Codec(tokenizer, PythonProgram(), add_bos=False)
    assert (codec.pad_id, codec.eos_id, tokenizer.bos_token_id) == (1, 2, bos)
    assert (tokenizer("a").input_ids[0] == 1) == (family == "codellama")  # BOS, which the paper's prompts do not have


def test_a_hub_model_in_the_cache_is_a_folder_like_any_other(publish, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--lqtrung1998--Codellama-7b-hf-ReFT-GSM8k"
    weights = publish(repository / "snapshots" / commit, "codellama", "value")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    policy = load(Path("lqtrung1998/Codellama-7b-hf-ReFT-GSM8k"), "shared")
    assert_same_weights(policy, weights)
    assert_value_head(policy, weights)
    assert load_tokenizer("lqtrung1998/Codellama-7b-hf-ReFT-GSM8k").pad_token_id == 1
    shutil.rmtree(repository)
    with pytest.raises(UserError, match="the hub's cache does not have it"):
        load(Path("lqtrung1998/Codellama-7b-hf-ReFT-GSM8k"))

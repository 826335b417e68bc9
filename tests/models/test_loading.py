from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    LlamaForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)

from reft_pl import hub
from reft_pl.errors import UserError
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings


def from_folder(folder: Path, **settings: object) -> PolicySettings:
    return PolicySettings(init_from=str(folder), **{"dtype": "float32", **settings})


@pytest.fixture
def folder(lm: PreTrainedModel, tmp_path: Path) -> Path:
    lm.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_loads_in_eval_mode(lm, folder):
    policy = load_policy(from_folder(folder))
    ids = torch.tensor([[5, 6, 7]])
    assert not policy.training
    assert torch.equal(policy.lm(ids).logits, lm(ids).logits)


def test_bfloat16_with_a_float32_value_head(folder):
    policy = load_policy(PolicySettings(init_from=str(folder), dtype="bfloat16"), "shared")
    assert {p.dtype for p in policy.lm.parameters()} == {torch.bfloat16}
    assert policy.value_head.weight.dtype == torch.float32


def test_from_scratch_needs_only_a_config_and_depends_on_the_seed(lm, tmp_path):
    lm.config.save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    first, again, other = (load_policy(from_folder(tmp_path, from_scratch=True), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_from_scratch_in_bfloat16_rounds_the_float32_weights(tmp_path, llama):
    llama.config.save_pretrained(tmp_path)
    wide = load_policy(from_folder(tmp_path, from_scratch=True), seed=4).state_dict()
    narrow = load_policy(from_folder(tmp_path, from_scratch=True, dtype="bfloat16"), seed=4).state_dict()
    assert all(torch.equal(narrow[name], wide[name].bfloat16()) for name in wide)


def test_rotary_frequencies_stay_float32(tmp_path, llama):
    llama.save_pretrained(tmp_path)
    for from_scratch in (True, False):
        policy = load_policy(from_folder(tmp_path, from_scratch=from_scratch, dtype="bfloat16"))
        assert policy.lm.model.rotary_emb.inv_freq.dtype == torch.float32


def test_no_weights_names_the_setting(tmp_path, llama):
    llama.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="from_scratch: true"):
        load_policy(from_folder(tmp_path))


def test_broken_weights(tmp_path, llama):
    llama.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=f"weights of {tmp_path} cannot be loaded"):
        load_policy(from_folder(tmp_path))


def test_weights_of_another_size(tmp_path, llama):
    llama.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(UserError, match=r"have other shapes than its config.json gives"):
        load_policy(from_folder(tmp_path))


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "no-such-model"}'])
def test_broken_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_policy(from_folder(tmp_path))


def test_folder_without_a_configuration(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load_policy(from_folder(tmp_path))


@pytest.mark.parametrize("source", ["runs/none/hf", "./none", "/none/at/all", "~/none", "", "a b"])
def test_missing_folder_is_not_looked_up_on_the_hub(source, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", None)
    with pytest.raises(UserError, match=r"no model (folder )?at"):
        load_policy(PolicySettings(init_from=source))


def test_an_unreachable_hub_fails_quickly(monkeypatch):
    class Unreachable:
        def model_info(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route")

    monkeypatch.setattr(hub, "HfApi", Unreachable)
    start = time.monotonic()
    with pytest.raises(UserError, match="hub cannot be reached"):
        load_policy(PolicySettings(init_from="nobody/nothing-of-the-kind"))
    assert time.monotonic() - start < 5


def test_classifier_without_a_language_model_head(tmp_path, llama):
    config = llama.config.__class__(**{**llama.config.to_dict(), "tie_word_embeddings": False})
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks weights of a language model, such as lm_head\.weight"):
        load_policy(from_folder(tmp_path))


def test_encoder_decoder(tmp_path):
    T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match=r"encoder-decoder \(t5\)"):
        load_policy(from_folder(tmp_path))


def test_not_a_language_model(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"not a causal language model \(vit\)"):
        load_policy(from_folder(tmp_path))


def test_bidirectional_model_with_a_language_model_head(tmp_path):
    config = BertConfig(vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is not causal"):
        load_policy(from_folder(tmp_path))


def test_a_head_with_an_unknown_quirk_is_refused(tmp_path, llama, monkeypatch):
    llama.save_pretrained(tmp_path)
    original = type(llama).forward

    def doubled(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(type(llama), "forward", doubled)
    with pytest.raises(UserError, match="transforms its logits in a way"):
        load_policy(from_folder(tmp_path))


@pytest.mark.parametrize(
    ("model_type", "quirk"),
    [
        ("gemma2", {"final_logit_softcapping": 2.0, "head_dim": 8}),
        ("cohere", {"logit_scale": 0.3}),
        ("granite", {"logits_scaling": 3.0}),
        ("gpt_neox", {}),
        ("bloom", {"attention": "eager"}),
    ],
)
def test_other_architectures_pass_with_their_scaling_and_capping(tmp_path, model_type, quirk):
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40, "intermediate_size": 48}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    attention = quirk.pop("attention", "sdpa")
    config = AutoConfig.for_model(model_type, **size, **special, **quirk)
    stored = AutoModelForCausalLM.from_config(config)
    stored.save_pretrained(tmp_path)
    loaded, fresh = (load_policy(from_folder(tmp_path, attention=attention, from_scratch=new)).lm for new in (False, True))
    assert type(loaded) is type(fresh) is type(stored)
    assert torch.equal(loaded.get_input_embeddings().weight, stored.get_input_embeddings().weight)
    assert not torch.equal(fresh.get_input_embeddings().weight, stored.get_input_embeddings().weight)


@pytest.mark.parametrize("from_scratch", [True, False])
def test_unknown_attention_is_refused(tmp_path, llama, from_scratch):
    llama.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no-such-attention"):
        load_policy(from_folder(tmp_path, attention="no-such-attention", from_scratch=from_scratch))


def test_an_architecture_without_layers_to_checkpoint_is_refused():
    from reft_pl.models.activation_checkpointing import checkpoint_layers

    with pytest.raises(UserError, match="does not support gradient_checkpointing"):
        checkpoint_layers(torch.nn.Linear(2, 2))

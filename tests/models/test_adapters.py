"""Adapters start as a no-op, train alone, disable cleanly, and merge to the same function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from reft_pl.errors import UserError
from reft_pl.models.adapter_folder import CONFIG_FILE, save_adapter
from reft_pl.models.adapters import adapted_layers, add_adapters, merge, plain_weights
from reft_pl.models.classifier import load_classifier
from reft_pl.models.fingerprint import fingerprint, weights_id
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import BasePolicy, Policy
from reft_pl.models.scoring import score
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.models.value_file import save_value

from .conftest import Batches


def trained(lm: PreTrainedModel, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Add adapters with non-zero weights."""
    add_adapters(lm.to(dtype), LoRASettings(r=3, alpha=6), seed=1)
    torch.manual_seed(2)
    for layer in adapted_layers(lm).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.3)
    return lm


def logprobs(policy: Policy, batches: Batches) -> torch.Tensor:
    with torch.no_grad():
        return score(policy, batches("right")).logprobs


def test_new_adapters_change_nothing_and_only_they_train(lm: PreTrainedModel, batches: Batches) -> None:
    """Every architecture, including GPT-2 with its transposed layers."""
    before, names = logprobs(Policy(lm).eval(), batches), dict(lm.state_dict())
    weights = {name: tensor.clone() for name, tensor in names.items()}
    state = torch.random.get_rng_state()
    add_adapters(lm, LoRASettings(), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    policy = Policy(lm, "shared").eval()
    assert torch.equal(logprobs(policy, batches), before)
    trainable = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert {name for name in trainable if "lora_" not in name} == {"value_head.weight", "value_head.bias"}
    assert len(trainable) == 2 + 2 * len(adapted_layers(lm))
    assert dict(plain_weights(lm, adapters=False)).keys() == weights.keys()
    for name, tensor in plain_weights(lm):
        assert torch.equal(tensor, weights[name]), name


def test_the_base_is_the_policy_with_its_adapters_off(lm: PreTrainedModel, batches: Batches) -> None:
    before = logprobs(Policy(lm).eval(), batches)
    plain = fingerprint(Policy(lm))
    policy = Policy(trained(lm), "shared").eval()
    base = BasePolicy(policy)
    assert torch.equal(logprobs(base, batches), before)
    assert fingerprint(base) == plain != fingerprint(policy)
    assert (logprobs(policy, batches) - before).abs().max() > 0.01, "and on again afterwards"
    assert all(p.requires_grad for name, p in policy.named_parameters() if "lora_" in name)


def test_merging_keeps_the_function(lm: PreTrainedModel, batches: Batches) -> None:
    policy = Policy(trained(lm)).eval()
    beside, announced, names = logprobs(policy, batches), weights_id(lm), [name for name, _ in plain_weights(lm)]
    merge(lm)
    assert not adapted_layers(lm)
    assert list(lm.state_dict()) == names
    assert weights_id(lm) == announced, "the digest of a model with adapters is that of the merged one"
    torch.testing.assert_close(logprobs(policy, batches), beside, atol=1e-4, rtol=0)


def test_a_step_on_adapters_lowers_the_loss_and_keeps_the_base(llama: PreTrainedModel, batches: Batches) -> None:
    """A gradient step on the adapters lowers the loss and leaves the base weights bitwise unchanged."""
    policy = Policy(trained(llama)).eval()
    base = fingerprint(BasePolicy(policy))
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(3):
        loss = -score(policy, batches("right")).logprobs.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    assert fingerprint(BasePolicy(policy)) == base


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stored_adapters_are_the_model_that_was_exported(
    dtype: str, llama: PreTrainedModel, tmp_path: Path, batches: Batches
) -> None:
    """Bitwise in our loader, and in transformers with adapters on top of the base model."""
    torch_dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    llama.to(torch_dtype).save_pretrained(tmp_path / "base")
    policy = Policy(trained(llama, torch_dtype), "shared").eval()
    torch.nn.init.normal_(policy.value_head.weight)
    (tmp_path / "adapter").mkdir()
    save_adapter(llama, tmp_path / "adapter", str(tmp_path / "base"))
    save_value(policy, tmp_path / "adapter")
    loaded = load_policy(PolicySettings(str(tmp_path / "adapter"), dtype=dtype), "shared")
    assert weights_id(loaded.lm) == weights_id(llama)
    assert all(p.requires_grad for p in loaded.parameters()), "the next stage may train all weights"
    assert torch.equal(loaded.value_head.weight, policy.value_head.weight)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch_dtype)
    ids = batches("right").input_ids
    with torch.no_grad():
        ours, theirs = llama(input_ids=ids).logits.float(), other(input_ids=ids).logits.float()
    # transformers keeps adapters in float32 even on bfloat16 weights
    assert (ours - theirs).norm() < (2e-2 if dtype == "bfloat16" else 1e-5) * ours.norm()
    classifier = load_classifier(str(tmp_path / "adapter"), torch_dtype)
    assert all(p.requires_grad for p in classifier.parameters())
    trunk = classifier.base_model.state_dict()
    merged = dict(plain_weights(llama))
    assert all(torch.equal(tensor, merged[f"model.{name}"]) for name, tensor in trunk.items())


def test_adapters_on_adapters_start_from_the_merged_ones(llama: PreTrainedModel, tmp_path: Path, batches: Batches) -> None:
    """The reference of a run that starts from stored adapters is the warm-up, not the warm-up's base model."""
    llama.save_pretrained(tmp_path / "base")
    warm_up = Policy(trained(llama)).eval()
    (tmp_path / "adapter").mkdir()
    save_adapter(llama, tmp_path / "adapter", str(tmp_path / "base"))
    policy = load_policy(PolicySettings(str(tmp_path / "adapter"), dtype="float32", lora=LoRASettings(r=2)))
    torch.testing.assert_close(logprobs(BasePolicy(policy), batches), logprobs(warm_up, batches), atol=1e-4, rtol=0)
    with pytest.raises(UserError, match=r"set policy\.lora\.export to merged"):
        load_policy(PolicySettings(str(tmp_path / "adapter"), lora=LoRASettings(export="adapter")))


def test_a_target_that_matches_no_layer_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(UserError, match="names 'typo', which no linear layer"):
        add_adapters(llama, LoRASettings(target_modules=["q_proj", "typo"]), seed=1)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "no_such_layer"])
def test_only_layers_of_the_trunk_are_adapted(target: str, llama: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=target if target != "no_such_layer" else "target_modules cannot be added"):
        add_adapters(llama, LoRASettings(target_modules=[target]), seed=1)


def test_settings_that_exclude_adapters(llama: PreTrainedModel, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="separate_value_model trains a full second model"):
        load_policy(PolicySettings(str(tmp_path), lora=LoRASettings()), "separate")
    with pytest.raises(UserError, match="from_scratch draws new ones"):
        load_policy(PolicySettings(str(tmp_path), from_scratch=True, lora=LoRASettings()))
    with pytest.raises(UserError, match=r"check model\.policy\.lora"):
        LoRASettings(r=0)


def test_a_broken_or_unsupported_adapter_is_one_sentence(llama: PreTrainedModel, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path / "base")
    trained(llama)
    (tmp_path / "adapter").mkdir()
    save_adapter(llama, tmp_path / "adapter", str(tmp_path / "base"))
    config = (tmp_path / "adapter" / CONFIG_FILE).read_text()
    for change, complaint in (
        (('"use_dora": false', '"use_dora": true'), "not plain LoRA"),
        (('"r": 3', '"r": 5'), "shapes differ"),
        (('"base_model_name_or_path": "', '"base_model_name_or_path": "/gone'), "no model folder"),
        (("{", ""), "cannot be read"),
    ):
        (tmp_path / "adapter" / CONFIG_FILE).write_text(config.replace(*change, 1))
        with pytest.raises(UserError, match=complaint):
            load_policy(PolicySettings(str(tmp_path / "adapter"), dtype="float32"))
    (tmp_path / "adapter" / CONFIG_FILE).write_text(config)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        load_policy(PolicySettings(str(tmp_path / "adapter"), dtype="float32"))

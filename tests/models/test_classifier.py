"""Two-class classifiers: the paper's rerankers, and new ones on a policy's trunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, T5Config, ViTConfig

from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.models.classifier import load_classifier
from reft_pl.models.export import export_folder
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings

Published = Callable[..., dict[str, torch.Tensor]]
FAMILIES = ["codellama", "galactica"]
TRUNK = {"codellama": "LlamaForSequenceClassification", "galactica": "OPTForSequenceClassification"}
ROWS = [[7, 8, 9, 40, 41], [30, 31], [12, 13, 14]]


def classify(model: PreTrainedModel, rows: list[list[int]]) -> torch.Tensor:
    """Compute logits [B, 2] of a batch padded with the config's padding token."""
    width = max(map(len, rows)) + 2
    pad = model.config.pad_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def assert_batch_is_its_rows(model: PreTrainedModel) -> None:
    """Each row is classified at its own last token, whatever follows."""
    alone = torch.cat([classify_alone(model, row) for row in ROWS])
    torch.testing.assert_close(classify(model, ROWS), alone, rtol=1e-4, atol=1e-5)
    assert (alone[:, 0] != alone[:, 1]).all()


def classify_alone(model: PreTrainedModel, row: list[int]) -> torch.Tensor:
    """Apply the head to the last hidden state of an unpadded row."""
    with torch.no_grad():
        states = model.base_model(input_ids=torch.tensor([row])).last_hidden_state
        return states[:, -1] @ model.score.weight.T


@pytest.mark.parametrize("layout", ["bin", "bin shards", "safetensors", "safetensors shards"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_reranker(family, layout, publish, tmp_path):
    weights = publish(tmp_path, family, "classes", layout)
    model = load_classifier(str(tmp_path))
    assert type(model).__name__ == TRUNK[family]
    assert not model.training
    own = model.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    assert model.config.pad_token_id == 1
    assert_batch_is_its_rows(load_classifier(str(tmp_path), torch.float32))


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("head", ["lm", "value"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_reranker_on_a_published_policy(family, head, wrapped, publish, tmp_path):
    weights = publish(tmp_path, family, head, wrapped=wrapped)
    model = load_classifier(str(tmp_path), seed=3)
    own = model.state_dict()
    assert own.keys() - weights.keys() == {"score.weight"}
    assert weights.keys() - own.keys() <= {"lm_head.weight", "v_head.summary.weight", "v_head.summary.bias"}
    assert all(torch.equal(own[name], weights[name]) for name in own.keys() & weights.keys())
    assert own["score.weight"].shape == (2, 32)
    assert model.config.pad_token_id == 1
    assert_batch_is_its_rows(load_classifier(str(tmp_path), torch.float32, seed=3))


def test_the_new_head_depends_only_on_the_seed(publish, tmp_path):
    publish(tmp_path, "codellama")
    before = torch.random.get_rng_state()
    head = load_classifier(str(tmp_path), torch.float32, seed=1).score.weight
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(load_classifier(str(tmp_path), torch.float32, seed=1).score.weight, head)
    assert torch.equal(load_classifier(str(tmp_path), torch.bfloat16, seed=1).score.weight, head.bfloat16())
    assert not torch.equal(load_classifier(str(tmp_path), torch.float32, seed=2).score.weight, head)
    assert 0.01 < float(head.detach().std()) < 0.03, "the architecture's initializer_range is 0.02"


def test_a_reranker_on_our_export_round_trips(publish, tmp_path):
    """A run's ``hf/`` folder with a value head loads its trunk bitwise and saves as a classifier."""
    publish(tmp_path / "theirs", "codellama", "value")
    policy = load_policy(PolicySettings(str(tmp_path / "theirs"), dtype="float32"), "shared")
    export_folder(policy, load_tokenizer(str(tmp_path / "theirs")), tmp_path / "hf", {"max_tokens": 64})
    model = load_classifier(str(tmp_path / "hf"), torch.float32, seed=5)
    trunk = policy.lm.base_model.state_dict()
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in model.base_model.state_dict().items())
    with torch.no_grad():
        model.score.weight.add_(1)
    model.save_pretrained(tmp_path / "reranker")
    again = load_classifier(str(tmp_path / "reranker"), torch.float32, seed=6)
    assert torch.equal(classify(again, ROWS), classify(model, ROWS))
    assert again.config.pad_token_id == 1


def test_the_padding_id_is_the_tokenizers_and_not_the_configs(publish, tmp_path):
    publish(tmp_path, "galactica", "classes")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": 7}))
    assert load_classifier(str(tmp_path)).config.pad_token_id == 1
    (tmp_path / "tokenizer.json").unlink()
    assert load_classifier(str(tmp_path)).config.pad_token_id == 7


@pytest.mark.parametrize(("eos", "expected"), [(2, 2), ([5, 6], 5)])
def test_without_a_padding_token_eos_is_used(eos, expected, publish, tmp_path):
    publish(tmp_path, "codellama")
    for file in tmp_path.glob("*token*"):
        file.unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": eos}))
    assert load_classifier(str(tmp_path)).config.pad_token_id == expected


def test_neither_padding_nor_eos_is_refused(publish, tmp_path):
    publish(tmp_path, "codellama")
    for file in tmp_path.glob("*token*"):
        file.unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": None, "pad_token_id": -1}))
    with pytest.raises(UserError, match="names neither a padding token nor EOS"):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_than_two_classes_are_refused(family, classes, publish, tmp_path):
    publish(tmp_path, family, "classes", classes=classes)
    with pytest.raises(UserError, match=f"has {classes} classes and a reranker needs two"):
        load_classifier(str(tmp_path))


def test_num_labels_of_a_language_model_is_ignored(publish, tmp_path):
    publish(tmp_path, "codellama")
    config = json.loads((tmp_path / "config.json").read_text())
    labels = {str(i): f"LABEL_{i}" for i in range(5)}
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": labels}))
    assert load_classifier(str(tmp_path)).score.weight.shape[0] == 2


@pytest.mark.parametrize(
    ("head", "gone"), [("classes", "score.weight"), ("classes", "model.norm.weight"), ("lm", "model.norm.weight")]
)
def test_incomplete_weights_are_refused(head, gone, publish, tmp_path):
    publish(tmp_path, "codellama", head, "safetensors")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors[gone]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"lacks weights of LlamaForSequenceClassification, such as {gone}"):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize("head", ["classes", "lm"])
def test_an_unused_weight_is_refused(head, publish, tmp_path):
    publish(tmp_path, "codellama", head)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(UserError, match=r"has no place for, such as model\.layers\.1\."):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize("config", [ViTConfig(), T5Config()], ids=["vit", "t5"])
def test_a_folder_without_a_classifier_or_weights_is_one_sentence(config, tmp_path: Path):
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no sequence classifier|cannot be loaded") as caught:
        load_classifier(str(tmp_path))
    assert "from_scratch" not in str(caught.value), "a setting that classifiers do not have"

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from reft_pl.errors import UserError
from reft_pl.models.export import export_folder, read_description
from reft_pl.models.folders import replace_folder
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.models.value_file import VALUE_FILE, save_value

DESCRIPTION = {"stage": "ppo", "max_tokens": 32, "format": {"class_path": "PythonProgram"}}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 101)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")), eos_token="</s>")


def trained(lm, kind) -> Policy:
    policy = Policy(lm, kind).eval()
    torch.manual_seed(5)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return policy


def tiny_of_another_width(lm):
    return AutoModelForCausalLM.from_config(type(lm.config)(**{**lm.config.to_dict(), "hidden_size": 16, "head_dim": 4}))


@pytest.mark.parametrize("kind", ["none", "shared", "separate"])
def test_reloaded_policy_scores_the_same(lm, tokenizer, batches, tmp_path, kind):
    policy, batch = trained(lm, kind), batches("left")
    export_folder(policy, tokenizer, tmp_path / "hf", DESCRIPTION)
    again = load_policy(PolicySettings(init_from=str(tmp_path / "hf"), dtype="float32"), kind)
    expected, actual = score(policy, batch), score(again, batch)
    assert torch.equal(actual.logprobs, expected.logprobs)
    if kind == "none":
        assert not (tmp_path / "hf" / VALUE_FILE).exists()
    else:
        assert bool(expected.values.any())
        assert torch.equal(actual.values, expected.values)


def test_plain_transformers_loads_it_and_decodes_as_described(lm, tokenizer, tmp_path):
    policy = trained(lm, "shared")
    export_folder(policy, tokenizer, tmp_path / "hf", DESCRIPTION)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    ids = torch.tensor([[4, 9, 30]])
    assert torch.equal(plain(ids).logits, policy.lm(ids).logits)
    settings = GenerationConfig.from_pretrained(tmp_path / "hf")
    assert (settings.do_sample, settings.eos_token_id, settings.pad_token_id, settings.max_length) == (False, 2, 2, 32)
    written = plain.generate(ids)
    assert written.shape[1] == 32 or int(written[0, -1]) == 2
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").eos_token_id == 2


def test_tied_embeddings_are_stored_once_and_tied_again(llama, tokenizer, tmp_path):
    export_folder(Policy(llama), tokenizer, tmp_path / "hf", DESCRIPTION)
    again = load_policy(PolicySettings(init_from=str(tmp_path / "hf"))).lm
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_from_scratch_in_bfloat16_with_checkpointing(llama, tokenizer, batches, tmp_path):
    llama.config.save_pretrained(tmp_path / "tiny")
    policy = load_policy(
        PolicySettings(str(tmp_path / "tiny"), from_scratch=True, dtype="bfloat16", gradient_checkpointing=True),
        "shared",
        seed=3,
    )
    export_folder(policy, tokenizer, tmp_path / "hf", DESCRIPTION)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    again = load_policy(PolicySettings(init_from=str(tmp_path / "hf"), dtype="bfloat16"), "shared")
    assert torch.equal(score(again, batches("right")).logprobs, score(policy, batches("right")).logprobs)


def test_an_existing_folder_is_replaced(llama, tokenizer, tmp_path):
    folder = tmp_path / "runs" / "hf"
    export_folder(Policy(llama, "shared"), tokenizer, folder, DESCRIPTION)
    export_folder(Policy(llama), tokenizer, folder, {"stage": "sft"})
    assert not (folder / VALUE_FILE).exists()
    assert read_description(folder) == {"stage": "sft"}
    assert [path.name for path in folder.parent.iterdir()] == ["hf"]


def test_a_card_is_written_beside_the_weights(llama, tokenizer, tmp_path):
    export_folder(Policy(llama), tokenizer, tmp_path / "hf", DESCRIPTION, "# A model\n")
    assert (tmp_path / "hf" / "README.md").read_text() == "# A model\n"


def test_a_failed_export_keeps_the_previous_one(llama, tokenizer, tmp_path):
    export_folder(Policy(llama), tokenizer, tmp_path / "hf", DESCRIPTION)
    with pytest.raises(TypeError):
        export_folder(Policy(llama, "shared"), tokenizer, tmp_path / "hf", {"stage": object()})
    assert read_description(tmp_path / "hf") == DESCRIPTION
    assert not (tmp_path / "hf" / VALUE_FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_kill_between_the_renames_restores_the_previous_folder(tmp_path: Path):
    (tmp_path / ".hf.old").mkdir()
    (tmp_path / ".hf.old" / "a").touch()
    (tmp_path / ".hf.new").mkdir()
    with pytest.raises(FileNotFoundError), replace_folder(tmp_path / "hf") as fresh:
        (fresh / "no-such-file").read_text()
    assert [path.name for path in (tmp_path / "hf").iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_value_function_of_another_kind_or_model_is_refused(llama, tokenizer, tmp_path):
    export_folder(trained(llama, "shared"), tokenizer, tmp_path / "hf", DESCRIPTION)
    settings = PolicySettings(init_from=str(tmp_path / "hf"))
    with pytest.raises(UserError, match="holds a shared value function but the run needs a separate one"):
        load_policy(settings, "separate")
    load_policy(settings, "none")
    other = trained(tiny_of_another_width(llama), "shared")
    save_value(other, tmp_path / "hf")
    with pytest.raises(UserError, match="does not fit the model in its folder"):
        load_policy(settings, "shared")
    file = tmp_path / "hf" / VALUE_FILE
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="cannot be read"):
        load_policy(settings, "shared")


def test_description_of_a_foreign_or_broken_folder(tmp_path):
    assert read_description(tmp_path) == {}
    for text in ("{", "[]"):
        (tmp_path / "reft.json").write_text(text)
        with pytest.raises(UserError, match=r"reft\.json"):
            read_description(tmp_path)


def test_the_export_has_our_stop_ids_and_suppresses_unused_ids(llama, tokenizer, tmp_path):
    with torch.no_grad():
        llama.get_output_embeddings().weight[90:] *= 9
    export_folder(Policy(llama), tokenizer, tmp_path / "hf", DESCRIPTION, stop_ids=(50, 2, 60), unused_ids=((90, 101),))
    settings = GenerationConfig.from_pretrained(tmp_path / "hf")
    assert settings.eos_token_id == [2, 50, 60]
    ids = torch.tensor([[4, 9, 30]])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    written = plain.generate(ids)[0, 3:].tolist()
    assert max(written) < 90
    export_folder(Policy(llama), tokenizer, tmp_path / "hf", DESCRIPTION, stop_ids=written[:1], unused_ids=((90, 101),))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert plain.generate(ids)[0, 3:].tolist() == written[:1]

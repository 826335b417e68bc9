"""Other formats and custom classes, each trained and tested briefly from the command line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from reft_pl.cli import main

Overlay = Callable[..., str]


def write_questions(path: Path, numbers: range, *, solutions: bool) -> str:
    rows = [{"problem": f"What is {i} + {i}?", "target": 2 * i, "why": f"{i} + {i} = {2 * i}."} for i in numbers]
    path.write_text("".join(json.dumps(row if solutions else row | {"why": None}) + "\n" for row in rows))
    return str(path)


def source(path: str) -> dict[str, object]:
    fields = {"question": "problem", "answer": "target", "solution": "why"}
    return {"class_path": "HFDatasetSource", "init_args": {"path": path, **fields}}


def block_of(document: str) -> str:
    """Return the only Python block of a document."""
    text = (Path(__file__).parents[2] / document).read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


@pytest.mark.slow
def test_natural_language_from_jsonl_with_a_field_mapping(overlay: Overlay, tmp_path: Path) -> None:
    data = {
        "train": [source(write_questions(tmp_path / "train.jsonl", range(12), solutions=True))],
        "validation": None,
        "holdout": 4,
        "test": {"sums": source(write_questions(tmp_path / "test.jsonl", range(12, 20), solutions=False))},
        "format": {"class_path": "NaturalLanguage"},
    }
    config = overlay("nl", trainer={"max_epochs": 1}, data=data)
    assert main(["fit", "--config", "configs/sft.yaml", "--config", config]) == 0
    assert main(["test", "--config", "configs/sft.yaml", "--config", config]) == 0
    description = json.loads((tmp_path / "nl" / "hf" / "reft.json").read_text())
    assert description["format"]["class_path"].endswith("NaturalLanguage")


def test_ppo_from_a_chat_model_on_questions_without_solutions(overlay: Overlay, micro_model: Path, tmp_path: Path) -> None:
    instruct = tmp_path / "instruct"
    shutil.copytree(micro_model, instruct)
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<assistant> "
    (instruct / "chat_template.jinja").write_text(template)
    data = {
        "train": [source(write_questions(tmp_path / "train.jsonl", range(12), solutions=False))],
        "validation": None,
        "holdout": 4,
        "test": {"sums": source(write_questions(tmp_path / "test.jsonl", range(12, 20), solutions=False))},
        "format": {"class_path": "Chat", "init_args": {"answer_pattern": "boxed"}},
    }
    untrained = {"init_args": {"policy": {"from_scratch": True}}}
    config = overlay("chat", init_from=instruct, data=data, model=untrained, trainer={"max_epochs": 1})
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", config]) == 0
    assert (tmp_path / "chat" / "rollouts.jsonl").read_text().count("\n") == 8


def test_sft_without_solutions_is_one_sentence(overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stories = {"class_path": "StorySource", "init_args": {"split": "train", "size": 12, "solutions": False}}
    config = overlay("none", data={"train": [stories]})
    assert main(["fit", "--config", "configs/sft.yaml", "--config", config]) == 2
    message = capsys.readouterr().err
    assert "has no annotated program to train on" in message
    assert "Traceback" not in message
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_custom_callback_and_reward_from_the_working_folder(
    overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The examples of the documents: files in the working folder, nothing installed."""
    (tmp_path / "my_reward.py").write_text(block_of("README.md"))
    (tmp_path / "my_callback.py").write_text(block_of("docs/howto/callback.md").replace("print(", "print('BEST', "))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
    config = overlay("ppo", init_from=tmp_path / "sft" / "hf", trainer={"max_epochs": 1})
    own = tmp_path / "own.yaml"
    own.write_text("trainer:\n  callbacks+:\n    - class_path: my_callback.PrintBest\n")
    args = ["fit", "--config", "configs/ppo.yaml", "--config", config, "--config", str(own)]
    assert main([*args, "--model.reward", "my_reward.BriefAnswerReward", "--model.reward.per_token", "0.002"]) == 0
    assert capsys.readouterr().out.count("BEST") == 3


def test_a_custom_estimator_from_the_working_folder(
    overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_model: Path
) -> None:
    code = block_of("docs/howto/algorithm.md")
    record = "        open('group_sizes.txt', 'a').write(f'{experience.group_size} ')\n"
    (tmp_path / "my_advantages.py").write_text(code.replace("        groups = ", f"{record}        groups = "))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {"init_args": {"policy": {"from_scratch": True}}}
    args = ["--config", overlay("ppo", init_from=micro_model, model=model, trainer={"max_epochs": 1})]
    own = ["--model.advantages", "my_advantages.BestOfGroup", "--model.samples_per_problem", "2"]
    assert main(["fit", "--config", "configs/ppo.yaml", *args, *own]) == 0
    assert (tmp_path / "group_sizes.txt").read_text().split() == ["2"] * 3, "one call per rollout"


def test_a_reward_of_the_wrong_length_is_one_sentence(
    overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], micro_model: Path
) -> None:
    code = ["from reft_pl.reward.base import RewardFunction", "class Short(RewardFunction):", " def score(self, samples):"]
    (tmp_path / "short_reward.py").write_text("\n".join([*code, "  return [0.0]"]))
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {"init_args": {"policy": {"from_scratch": True}, "reward": {"class_path": "short_reward.Short"}}}
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", overlay("ppo", init_from=micro_model, model=model)]) == 2
    assert "the reward function Short returned 1 rewards for 4 samples" in capsys.readouterr().err


def test_a_chat_ends_with_its_end_of_turn_from_data_to_export(overlay: Overlay, micro_model: Path, tmp_path: Path) -> None:
    """An instruct model with an end of turn other than EOS, named only by the template, and a padded LM head."""
    model = tmp_path / "instruct"
    shutil.copytree(micro_model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<end_of_turn>\n{% endfor %}"
    tokenizer.save_pretrained(model)
    end, size = tokenizer.convert_tokens_to_ids("<end_of_turn>"), len(tokenizer)
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": size + 15}))
    data = {
        "train": [source(write_questions(tmp_path / "train.jsonl", range(8), solutions=True))],
        "validation": None,
        "test": {"sums": source(write_questions(tmp_path / "test.jsonl", range(12, 16), solutions=False))},
        "format": {"class_path": "Chat"},
    }
    config = overlay("chat", trainer={"max_epochs": 1}, data=data)
    command = ["--config", "configs/sft.yaml", "--config", config, "--model.policy.init_from", str(model)]
    assert main(["fit", *command]) == 0
    generation = json.loads((tmp_path / "chat" / "hf" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.eos_token_id, end]
    assert generation["suppress_tokens"] == list(range(size, size + 15))
    assert main(["test", *command, "--ckpt_path", str(tmp_path / "chat" / "hf")]) == 0
    (results,) = (tmp_path / "chat" / "tests").rglob("results.json")
    assert json.loads(results.read_text())["test"]["sums"]["n"] == 4

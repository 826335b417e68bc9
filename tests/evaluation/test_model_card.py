"""The model card of hand-made runs: every figure of these weights, and none of other weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from reft_pl.evaluation.model_card import model_card, write_card
from reft_pl.evaluation.reranked import copy_to_sampled_runs

HERE, FORMER = "weights of hf", "former weights"
QUESTION = 'How many "boxes"?'
RESPONSE = 'def solution():\n    """How many?"""\n    # ```\n    return 7\n\n\x1b[2J'


def source(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"reft_pl.data.sources.{name}", "init_args": init_args}


CONFIG: dict[str, Any] = {
    "seed_everything": 3,
    "model": {
        "class_path": "reft_pl.modules.PPOModule",
        "init_args": {
            "policy": {"init_from": "/home/somebody/runs/sft/hf", "dtype": "bfloat16"},
            "optimizer": {"class_path": "reft_pl.models.optim.MasterAdamW", "init_args": {"lr": 2e-4}},
            "kl_coef": 0.05,
            "minibatch_size": None,
            "sampler": source("InProcessSampler", max_rows=64),
            "seed": 3,
        },
    },
    "data": {
        "train": [
            source("SelfTraining", annotated=source("Gsm8kOfficial", path="/home/somebody/train.jsonl"), samples="a.jsonl"),
            source("HFDatasetSource", path="owner/questions", subset=None, split="train"),
            source("AuthorsJson", path="data/svamp.json", limit=None),
        ],
        "holdout": 200,
        "test": {
            "svamp": source("AuthorsJson", path="data/svamp_test_set.json"),
            "hard": source("HFDatasetSource", path="owner/questions", split="test"),
            "hardest": source("HFDatasetSource", path="owner/questions", split="test"),
        },
        "batch_size": 256,
    },
}

DESCRIPTION = {
    "stage": "ppo",
    "base": "/home/somebody/runs/sft/hf",
    "from_scratch": False,
    "format": {"class_path": "reft_pl.formats.PythonProgram", "init_args": {}},
    "max_prompt_tokens": 300,
    "max_tokens": 400,
    "weights": HERE,
    "inherited": {"license": "apache-2.0", "base_model": "owner/base"},
    "example": {"question": "What is 2 + 2?", "prompt": "Question:\nWhat is 2 + 2?\nAnswer reasoning:\n"},
}


def results(weights: str) -> dict[str, Any]:
    return {
        "fit": {
            "batches": 40,
            "epochs": 5,
            "optimizer_steps": 160,
            "best": {"val/top1": 0.435, "batch": 32},
            "weights": weights,
        },
        "validation": {"val/top1": 0.425, "weights": weights},
        "test": {
            "svamp": {"top1": 0.389, "n": 1000, "interval95": [0.359, 0.4199], "weights": weights},
            "hard": {"top1": 0.25, "n": 40, "interval95": [0.14, 0.40], "weights": weights},
            "hardest": {"top1": 0.125, "n": 40, "interval95": [0.05, 0.26], "weights": weights},
        },
        "samples": {
            "svamp": {
                "questions": 1000,
                "n": 16,
                "voting@8": [0.40, 0.37, 0.43],
                "voting@16": [0.42, 0.39, 0.45],
                "pass@16": [0.7, 0.67, 0.73],
                "weights": weights,
            },
            "train": {"questions": 3000, "n": 8, "voting@8": [0.99, 0.98, 1.0], "weights": weights},
        },
        "reranked": {"svamp": {"rerank@16": [0.5, 0.47, 0.53], "weighted@16": [0.52, 0.49, 0.55], "weights": weights}},
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = tmp_path / "reft-run"
    for folder in ("hf", "predictions", "samples"):
        (run / folder).mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run / "hf" / "reft.json").write_text(json.dumps(DESCRIPTION))
    (run / "results.json").write_text(json.dumps(results(HERE)))
    rows = [
        {"item_id": "a", "question": "Wrong?", "response": "WRONG", "answer": 1, "gold": 2, "correct": False},
        {"item_id": "b", "question": "Long?", "response": "LONG" * 1000, "answer": 2, "gold": 2, "correct": True},
        {"item_id": "c", "question": QUESTION, "response": RESPONSE, "answer": 7.0, "gold": 7.0, "correct": True},
    ]
    (run / "predictions" / "svamp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "samples" / "svamp.settings.json").write_text(json.dumps({"temperature": 1.0, "top_k": 50, "top_p": 1.0}))
    return run


def test_a_card_reads_back_with_the_same_metadata(run_dir: Path) -> None:
    write_card(run_dir)
    here, there = model_card(run_dir), ModelCard.load(run_dir / "hf" / "README.md")
    assert there.data.to_dict() == here.data.to_dict()
    assert there.data.eval_results == here.data.eval_results
    assert there.text == here.text
    assert here.data.license == "apache-2.0"
    assert here.data.base_model == "owner/base"
    assert here.data.datasets == ["openai/gsm8k", "owner/questions"]
    assert not list((run_dir / "hf").glob(".README*"))


def test_every_measured_figure_is_in_the_table(run_dir: Path) -> None:
    text = model_card(run_dir).text
    assert "| test set | questions | Top-1 | Voting@16 | Rerank@16 | Weighted@16 | Pass@16 |" in text
    assert (
        "| `svamp` | 1,000 | 38.9% (35.9 to 42.0) | 42.0% (39.0 to 45.0) | 50.0% (47.0 to 53.0) | 52.0% (49.0 to 55.0) "
        "| 70.0% (67.0 to 73.0) |"
    ) in text
    assert "| `hard` | 40 | 25.0% (14.0 to 40.0) |  |  |  |  |" in text
    assert "Samples were drawn at temperature 1, from the 50 likeliest tokens." in text
    assert "`val/top1` 42.5%" in text
    assert "99.0%" not in text, "samples of training questions say nothing about the model"


def test_every_set_has_its_own_entry_in_the_model_index(run_dir: Path) -> None:
    (index,) = model_card(run_dir).data.to_dict()["model-index"]
    assert index["name"] == "reft-run"
    found = {
        (entry["dataset"]["type"], entry["dataset"]["name"]): {m["name"]: m["value"] for m in entry["metrics"]}
        for entry in index["results"]
    }
    assert found == {
        ("svamp_test_set", "svamp"): {"Top-1": 0.389, "Voting@16": 0.42, "Rerank@16": 0.5, "Weighted@16": 0.52, "Pass@16": 0.7},
        ("owner/questions", "hard"): {"Top-1": 0.25},
        ("owner/questions", "hardest"): {"Top-1": 0.125},
    }


def test_figures_of_a_subset_of_questions_are_marked(run_dir: Path) -> None:
    found = results(HERE)
    found["samples"]["svamp"]["questions"] = 200
    (run_dir / "results.json").write_text(json.dumps(found))
    card = model_card(run_dir)
    assert (
        "| `svamp` |  | 38.9% (35.9 to 42.0), 1,000 questions | 42.0% (39.0 to 45.0), 200 questions "
        "| 50.0% (47.0 to 53.0), 200 questions | 52.0% (49.0 to 55.0), 200 questions | 70.0% (67.0 to 73.0), 200 questions |"
    ) in card.text
    assert "| `hard` | 40 | 25.0% (14.0 to 40.0) |" in card.text
    entries = card.data.to_dict()["model-index"][0]["results"]
    assert [(e["dataset"]["name"], e["dataset"].get("config"), len(e["metrics"])) for e in entries] == [
        ("svamp", None, 1),
        ("svamp (200 questions)", "200 questions", 4),
        ("hard", None, 1),
        ("hardest", "hardest", 1),
    ]


@pytest.mark.parametrize("section", ["fit", "validation", "test", "samples", "reranked"])
def test_a_figure_of_other_weights_is_left_out(section: str, run_dir: Path) -> None:
    shown = {
        "fit": "after batch 32",
        "validation": "42.5%",
        "test": "38.9%",
        "samples": "Voting@16",
        "reranked": "Rerank@16",
    }
    mixed = results(HERE) | {section: results(FORMER)[section]}
    (run_dir / "results.json").write_text(json.dumps(mixed))
    text = model_card(run_dir).text
    assert {name for name, phrase in shown.items() if phrase not in text} == {section}
    assert ("# Expected response" in text) == (section != "test")


def test_unmeasured_figures_are_not_mentioned(run_dir: Path) -> None:
    (run_dir / "results.json").unlink()
    card = model_card(run_dir)
    for word in ("## Results", "## Expected response", "Top-1", "Voting", "Rerank", "None", "%"):
        assert word not in card.text
    assert "model-index" not in card.data.to_dict()
    assert "model_name" not in card.data.to_dict()
    assert str(ModelCard(str(card))) == str(card)


def test_a_folder_without_a_run_has_a_card_too(tmp_path: Path) -> None:
    assert "# nothing\n" in model_card(tmp_path / "nothing", {}).text
    write_card(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_response_is_shown_as_inert_text(run_dir: Path) -> None:
    text = model_card(run_dir).text
    response = text.split("## Expected response")[1].split("## Intended use")[0]
    assert f"```text\n{QUESTION}\n```" in response
    assert "````python\n" + RESPONSE.replace("\x1b", "\\x1b") + "\n````" in response
    assert "which gives `7.0`, the correct answer" in response
    assert "\x1b" not in str(model_card(run_dir))
    assert "WRONG" not in text
    assert "LONG" not in text


def test_training_details_are_shown_without_local_paths(run_dir: Path) -> None:
    text = model_card(run_dir).text
    assert "started from `sft/hf`, trained with ReFT" in text
    assert "`SelfTraining(annotated=Gsm8kOfficial(path='train.jsonl'), samples='a.jsonl')`" in text
    assert "- for validation: 200 of these questions, held out of training" in text
    for row in (
        "| `optimizer` | `MasterAdamW` |",
        "| `optimizer.lr` | `0.0002` |",
        "| `kl_coef` | `0.05` |",
        "| `seed` | `3` |",
    ):
        assert row in text
    for word in ("somebody", "max_rows", "minibatch_size"):
        assert word not in text
    assert "```text\nQuestion:\nWhat is 2 + 2?\nAnswer reasoning:\n```" in text


@pytest.mark.parametrize(
    ("sources", "phrase"),
    [
        (CONFIG["data"]["train"], "fine-tuned on annotated solutions and correct ones that a policy sampled"),
        (CONFIG["data"]["train"][1:], "fine-tuned on annotated solutions (SFT: the warm-up of ReFT"),
    ],
)
def test_offline_self_training_is_distinguished_from_sft(sources: list[Any], phrase: str, run_dir: Path) -> None:
    (run_dir / "hf" / "reft.json").write_text(json.dumps(DESCRIPTION | {"stage": "sft"}))
    (run_dir / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"data": {"train": sources}}))
    text = model_card(run_dir).text
    assert f"started from `sft/hf`, {phrase}" in text
    assert text.count("fine-tuned on") == 1


def test_a_rerankers_figures_are_recorded_with_the_ranked_run(run_dir: Path, tmp_path: Path) -> None:
    of_run = results(HERE)
    del of_run["reranked"]
    (run_dir / "results.json").write_text(json.dumps(of_run))
    ranked = {"questions": 1000, "n": 16, "rerank@16": [0.5, 0.47, 0.53], "voting@16": [0.42, 0.39, 0.45]}
    reranker = tmp_path / "reranker"
    reranker.mkdir()
    entries = {
        "svamp": {**ranked, "samples": str(run_dir / "samples" / "svamp.jsonl")},
        "before": {**ranked, "samples": str(run_dir / "samples" / "hard.jsonl")},  # that run has no such samples any more
        "elsewhere": {**ranked, "samples": str(tmp_path / "svamp.jsonl")},
        "earlier": {**ranked, "samples": str(run_dir / "samples" / "svamp.jsonl"), "rerank@16": [0.9, 0.8, 1.0]},
    }
    (reranker / "results.json").write_text(json.dumps({"rerank": entries}))
    copy_to_sampled_runs(reranker, ["svamp", "before", "elsewhere"])
    recorded = json.loads((run_dir / "results.json").read_text())
    about = {"reranker": str(reranker), "questions": 1000, "weights": HERE}
    assert recorded == of_run | {"reranked": {"svamp": {**about, "rerank@16": [0.5, 0.47, 0.53]}}}
    assert "50.0% (47.0 to 53.0)" in (run_dir / "hf" / "README.md").read_text()

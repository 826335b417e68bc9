"""Every ``hf/`` of the chain has a model card, which is updated with new results."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from reft_pl.cli import main
from reft_pl.evaluation.model_card import model_card

Overlay = Callable[..., str]


def card_of(run: Path) -> ModelCard:
    """Return the card on disk, after checking that it equals the one built from the run's files."""
    loaded = ModelCard.load(run / "hf" / "README.md")
    assert loaded.data.to_dict() == model_card(run).data.to_dict()
    assert loaded.text == model_card(run).text
    return loaded


def metrics(card: ModelCard) -> set[tuple[str, str]]:
    return {(result.dataset_name, result.metric_name) for result in card.data.eval_results or []}


@pytest.mark.slow
def test_the_chain_writes_model_cards(overlay: Overlay, tmp_path: Path) -> None:
    sft = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *sft]) == 0
    warm_up = card_of(tmp_path / "sft")
    assert "its weights drawn at random" in warm_up.text
    assert metrics(warm_up) == set()
    assert warm_up.data.base_model is None
    assert warm_up.data.license is None

    base = tmp_path / "base"  # simulates fine-tuning from a pretrained model
    shutil.copytree(tmp_path / "sft" / "hf", base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: owner/base\n---\n")
    ppo = ["--config", "configs/ppo.yaml", "--config", overlay("ppo", init_from=base, trainer={"max_epochs": 1})]
    assert main(["fit", *ppo]) == 0
    shutil.rmtree(base)
    assert main(["test", *ppo]) == main(["validate", *ppo]) == 0
    card = card_of(tmp_path / "ppo")
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "owner/base")
    assert metrics(card) == {("ordinary", "Top-1"), ("unseen", "Top-1")}
    results = json.loads((tmp_path / "ppo" / "results.json").read_text())
    assert results["test"]["ordinary"]["weights"] == results["fit"]["weights"] == results["validation"]["weights"]
    assert "| `ordinary` | 4 | " in card.text
    assert "by which the checkpoint may have been chosen" in card.text

    data = yaml.safe_load((tmp_path / "ppo.yaml").read_text())["data"]
    sample = tmp_path / "sample.yaml"
    sample.write_text(yaml.safe_dump({"run_dir": str(tmp_path / "ppo"), "model": {"init_args": {"n": 2}}, "data": data}))
    assert main(["predict", "--config", "configs/sample.yaml", "--config", str(sample), "--data.predict", "[unseen]"]) == 0
    card = card_of(tmp_path / "ppo")
    assert metrics(card) >= {("ordinary", "Top-1"), ("unseen", "Voting@2"), ("unseen", "Pass@2")}


@pytest.mark.slow
def test_a_figure_is_only_shown_for_its_weights(overlay: Overlay, tmp_path: Path) -> None:
    run = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *run]) == main(["test", *run]) == 0
    measured = {("ordinary", "Top-1"), ("unseen", "Top-1")}
    assert metrics(card_of(tmp_path / "sft")) == measured
    assert main(["fit", *run]) == 0, "nothing is left to train, and hf/ is written again"
    assert metrics(card_of(tmp_path / "sft")) == measured
    assert main(["test", *run, "--model.policy.dtype", "bfloat16"]) == 0, "rounded, they are other weights than hf/ holds"
    assert metrics(card_of(tmp_path / "sft")) == set()
    assert main(["test", *run]) == 0
    assert metrics(card_of(tmp_path / "sft")) == measured

    # A run that is killed between a better checkpoint and its end leaves the former weights in hf/.
    best = tmp_path / "sft" / "checkpoints" / "best.ckpt"
    state = torch.load(best, weights_only=True)
    next(iter(state["state_dict"].values())).add_(0.5)
    torch.save(state, best)
    assert main(["test", *run]) == 0
    assert metrics(card_of(tmp_path / "sft")) == set()

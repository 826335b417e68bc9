"""Online self-training, from the command line and against a hand-computed loss."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reft_pl.cli import main
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.stories.source import StorySource
from reft_pl.formats import PythonProgram

Overlay = Callable[..., str]

REWARD = """
from reft_pl.reward.base import RewardFunction


class EveryOther(RewardFunction):
    def score(self, samples):
        return [float(i % 2) for i in range(len(samples))]
"""


def test_online_from_the_command_line(overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "every_other.py").write_text(REWARD)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
    model = {"init_args": {"reward": {"class_path": "every_other.EveryOther"}, "minibatch_size": 2, "inner_epochs": 2}}
    config = overlay("online", init_from=tmp_path / "sft" / "hf", trainer={"max_epochs": 1}, model=model)
    assert main(["fit", "--config", "configs/online_self_training.yaml", "--config", config]) == 0
    assert main(["test", "--config", "configs/online_self_training.yaml", "--config", config]) == 0
    rows = [json.loads(line) for line in (tmp_path / "online" / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert sum(row["reward"] for row in rows) == 6
    assert json.loads((tmp_path / "online" / "results.json").read_text())["fit"]["optimizer_steps"] == 3 * 2 * 2


@pytest.fixture
def online(micro_model, tmp_path, monkeypatch):
    """A module that is ready to compute losses on four problems."""
    from types import SimpleNamespace

    from reft_pl.models.settings import PolicySettings
    from reft_pl.modules import OnlineSelfTrainingModule

    module = OnlineSelfTrainingModule(
        PolicySettings(str(micro_model), from_scratch=True, dtype="float32"), micro_batch_tokens=150
    )
    data = ReasoningDataModule(
        train=[StorySource("train", 4)], format=PythonProgram(), tokenizer=str(micro_model), max_tokens=200,
        max_prompt_tokens=190, cache_dir=str(tmp_path),
    )  # fmt: skip
    data.setup("fit")
    module._trainer = SimpleNamespace(
        datamodule=data, training=False, current_epoch=0, callbacks=[], strategy=None, world_size=1, global_rank=0
    )
    module.configure_model()
    return module


def test_the_loss_is_half_of_each_mean_even_if_one_is_missing(online):
    problems = online.problems.train_problems
    rollout = online.collect(problems)
    rollout = type(rollout)(rollout.samples, rollout.tokens, torch.tensor([1.0, 0.1, 1.0, 0.0]))
    total = sum(loss() for loss in online.losses(problems, rollout, [0, 1, 2, 3])).item()

    def mean(tokens, rows):
        logits = online.policy.lm(tokens.input_ids[rows], attention_mask=tokens.attention_mask[rows].long()).logits
        logprobs = logits[:, :-1].log_softmax(-1).gather(-1, tokens.input_ids[rows][:, 1:, None])[..., 0]
        return -logprobs[tokens.action_mask[rows][:, :-1]].mean()

    annotated = online.annotated(problems)
    expected = 0.5 * mean(rollout.tokens, [0, 2]) + 0.5 * mean(annotated, [0, 1, 2, 3])
    assert total == pytest.approx(expected.item(), rel=1e-5)
    alone = sum(loss() for loss in online.losses(problems, rollout, [1, 3])).item()
    assert alone == pytest.approx(0.5 * mean(online.annotated([problems[1], problems[3]]), [0, 1]).item(), rel=1e-5)

"""A small run of any stage under any strategy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .runs import on_two_cpus

Overlay = Callable[..., str]
LENGTH_REWARD = """
from reft_pl.reward.base import RewardFunction


class LengthReward(RewardFunction):
    def score(self, samples):
        return [len(sample.completion.token_ids) / 100 for sample in samples]
"""


@pytest.fixture
def arguments(overlay: Overlay, micro_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a small PPO run from scratch under a strategy; ``zero3`` keeps nothing whole."""
    (tmp_path / "length.py").write_text(LENGTH_REWARD)
    init_args = {
        "policy": {"init_from": str(micro_model), "from_scratch": True},
        "reward": {"class_path": "length.LengthReward"},
        "minibatch_size": 3,
        "micro_batch_tokens": 420,
    }
    small = overlay("ppo", model={"init_args": init_args}, trainer={"num_sanity_val_steps": 0})

    plain_sft = overlay("sft", trainer={"num_sanity_val_steps": 0})

    def make(verb: str, strategy: str, run: str, *further: str, stage: str = "ppo", plain: bool = False) -> list[str]:
        config = plain_sft if plain else small
        words = [verb, "--config", f"configs/{stage}.yaml", "--config", config, "--run_dir", str(tmp_path / run)]
        words += on_two_cpus(strategy)
        if strategy == "zero3":
            words += ["--trainer.strategy.init_args.persistent_elements", "0"]
        return [*words, *further]

    return make

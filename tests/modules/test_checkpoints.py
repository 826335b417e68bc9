"""A killed and resumed run ends with the weights of an uninterrupted one."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GPT2Config

from reft_pl.cli import main
from tests.modules.stops import assert_same_run

Overlay = Callable[..., str]

REWARD = """
from reft_pl.reward.base import RewardFunction


class LengthReward(RewardFunction):
    def score(self, samples):
        return [len(sample.completion.token_ids) / 100 for sample in samples]
"""


def command(stage: str, overlay: str, run_dir: Path) -> list[str]:
    code = "import sys; from reft_pl.cli import main; sys.exit(main())"
    return [
        sys.executable,
        "-c",
        code,
        "fit",
        "--config",
        f"configs/{stage}.yaml",
        "--config",
        overlay,
        "--run_dir",
        str(run_dir),
    ]


def with_dropout(tokenizer_from: Path, folder: Path) -> Path:
    """A GPT-2 of a few thousand weights with the tokenizer of another folder; loading it initializes the weights."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tokenizer.save_pretrained(folder)
    size = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512}
    GPT2Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **size).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "trainer", "dropout"),
    [
        ("sft", {"max_epochs": 4, "check_val_every_n_epoch": 2}, False),
        ("sft", {"max_epochs": 4, "check_val_every_n_epoch": 2}, True),
        ("ppo", {"max_epochs": 4, "check_val_every_n_epoch": 2}, False),
        ("ppo", {"max_epochs": 3, "check_val_every_n_epoch": 1, "val_check_interval": 2}, False),
    ],
    ids=["sft", "sft-dropout", "ppo", "ppo-validated-mid-epoch"],
)
def test_a_run_killed_at_random_moments_ends_bitwise_equal(
    stage: str,
    trainer: dict[str, int],
    dropout: bool,
    overlay: Overlay,
    micro_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill -9 at five random moments, in any phase: start-up, rollout, update, validation, saving, export."""
    init_from = None
    if stage == "ppo":
        assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
        init_from = tmp_path / "sft" / "hf"
    model: dict[str, Any] = {}
    if dropout:  # Llama has none
        gpt2 = with_dropout(micro_model, tmp_path / "gpt2")
        model = {"init_args": {"policy": {"init_from": str(gpt2), "from_scratch": True}}}
    if stage == "ppo":  # an untrained model earns nothing, and learns nothing from that
        (tmp_path / "resume_reward.py").write_text(REWARD)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        model = {"init_args": {"reward": {"class_path": "resume_reward.LengthReward"}, "minibatch_size": 2}}
    config = overlay(stage, init_from=init_from, trainer=trainer, model=model)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    subprocess.run(command(stage, config, whole), check=True, capture_output=True)
    seconds = time.monotonic() - start
    seed = random.SystemRandom().randrange(2**32)
    print(f"moments drawn with seed {seed}")
    moments = random.Random(seed)
    kills = 0
    while kills < 5:
        process = subprocess.Popen(command(stage, config, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            exit_code = process.wait(moments.uniform(0.2, 0.7) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:  # a resumed run is shorter: it may end before its kill, and the next one starts from scratch
            assert exit_code == 0
            assert_same_run(whole, killed)
            shutil.rmtree(killed)
    done = subprocess.run(command(stage, config, killed), check=True, capture_output=True, text=True)
    assert re.search(r"resuming from|Epoch|epoch", done.stdout + done.stderr)
    assert_same_run(whole, killed)

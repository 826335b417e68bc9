"""The figures that benchmarks compute, checked by hand; and each benchmark once, on a micro model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks._machine import Need
from benchmarks._turns import CONTENDERS, OURS, chosen

ROOT = Path(__file__).parents[1]
CONFIG = LlamaConfig(
    vocab_size=10, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
LAYERS = 2 * (8 * 8 * 2 + 8 * 4 * 2 + 3 * 8 * 12)  # queries and output, keys and values, the gated MLP
HEAD = 10 * 8


def test_flops_of_a_forward_pass_by_hand() -> None:
    attention = 2 * (2 * 3**2 + 2 * 5**2) * 8  # per layer and row, half of two products of 2 n^2 D
    assert Need.of(CONFIG).forward([3, 5], chosen=4) == 2 * LAYERS * 8 + attention + 2 * HEAD * 4
    assert Need.of(CONFIG).update([3, 5], chosen=4) == 3 * Need.of(CONFIG).forward([3, 5], chosen=4)


def test_the_least_time_of_a_rollout_by_hand() -> None:
    need = Need.of(CONFIG)
    prompts, responses = [3, 5], [1, 3]  # the first row's only token comes of its prompt; the second decodes two steps
    reading = need.forward(prompts, 2)
    steps = sum(2 * (LAYERS + HEAD) + 4 * 8 * 2 * (5 + t) for t in (1, 2))
    assert need.rollout_seconds(prompts, responses, peak=1.0, rate=1e30, size=2) == reading + steps
    read = sum(2 * (LAYERS + HEAD + 2 * 4 * 2 * (5 + t)) for t in (1, 2))
    assert need.rollout_seconds(prompts, responses, peak=1e30, rate=1.0, size=2) == pytest.approx(read)


def test_a_race_can_have_one_side() -> None:
    assert chosen(CONTENDERS, "") == CONTENDERS
    assert chosen(CONTENDERS, "default") == [OURS, CONTENDERS[1]]
    with pytest.raises(SystemExit, match=r"--against 'vLLM' is in no name of \['straight, default allocator'"):
        chosen(CONTENDERS, "vLLM")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "--examples", "4"],
        ["update", "--examples", "4"],
        ["update", "--examples", "4", "--ppo"],
        ["ppo_iteration", "--questions", "4"],
        ["ppo_iteration", "--questions", "4", "--no-rescore", "--against", "default allocator"],
        ["rollout", "--prompts", "4"],
    ],
    ids=" ".join,
)
def test_each_race_ends_in_a_table_and_json(arguments: list[str], micro_model: Path, shared: Path, tmp_path: Path) -> None:
    model = tmp_path / "drawn"
    shutil.copytree(micro_model, model)
    LlamaForCausalLM(LlamaConfig.from_pretrained(model, max_position_embeddings=1024)).save_pretrained(model)
    inputs = ["--model", str(model), "--data", str(shared / "data" / "svamp_python_sdp.json")]
    command = [sys.executable, "-m", "benchmarks", *arguments, *inputs, "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| reft-pl |" in done.stdout
    json.loads(done.stdout.splitlines()[-1])

"""Memory estimates against hand counts, autograd on real tensors, and (slow) a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from reft_pl.models.activations import activations, empty_model
from reft_pl.models.memory import Run, estimate
from reft_pl.models.policy import Policy
from reft_pl.models.pretrained import load_config
from reft_pl.models.settings import LoRASettings, PolicySettings

from .conftest import CONFIGS

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "configs" / "models"


def kept_by_autograd(lm: PreTrainedModel, rows: int, length: int) -> int:
    """Return the bytes that a real forward pass saves, excluding weights."""
    own = {t.untyped_storage().data_ptr() for t in (*lm.parameters(), *lm.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.zeros(rows, length, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Policy(lm).hidden_states(ids, torch.ones_like(ids, dtype=torch.bool))
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(name: str, dtype: torch.dtype) -> None:
    config = CONFIGS[name]
    lm = AutoModelForCausalLM.from_config(deepcopy(config), dtype=dtype, attn_implementation="sdpa").eval()
    real = kept_by_autograd(lm, 4, 40)
    assert activations(empty_model(config, dtype), 4, 40).kept(recompute=False) == pytest.approx(real, rel=0.15)


def test_activations_grow_with_the_micro_batch_and_shrink_by_recomputation() -> None:
    def of(rows: int) -> tuple[int, int]:
        found = activations(empty_model(CONFIGS["llama"], torch.float32), rows, 32)
        assert len(found.layers) == len(found.inputs) == 2
        assert found.inputs[0] == rows * 32 * 32 * 4, "rows x tokens x width x four bytes"
        return found.kept(recompute=False), found.kept(recompute=True)

    (whole, less), (twice, _) = of(2), of(4)
    assert twice == pytest.approx(2 * whole, rel=0.02)
    assert less < whole / 2


CODELLAMA = Run(
    PolicySettings("codellama", dtype="bfloat16", gradient_checkpointing=True), 700, 4096, 4, cache_rows=16, reference=True
)


@pytest.fixture(scope="module")
def codellama() -> object:
    return load_config(str(SHAPES / "codellama_7b"), {})


def test_seven_billion_weights_by_hand(codellama: object) -> None:
    """Embeddings and head 2 x 32016 x 4096; a layer 4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096; 32 layers; a final norm."""
    made = estimate(codellama, CODELLAMA)
    weights = 2 * 32016 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    assert made.parameters == made.trained == weights
    parts = made.parts
    assert parts["weights"] == parts["gradients"] == parts["reference"] == 2 * weights
    assert (parts["master weights"], parts["optimizer moments"]) == (4 * weights, 8 * weights)
    assert parts["KV cache"] == 16 * 700 * 2 * 32 * 4096 * 2
    assert made.peak == "update"


def test_drafts_need_logits_and_scores_of_more_tokens(codellama: object) -> None:
    """16 tokens a step, or 32 at most and scores for 9 tokens of each row, should one of them have 8 guesses."""
    alone = estimate(codellama, CODELLAMA).parts["sampling work space"]
    guessing = estimate(codellama, replace(CODELLAMA, draft_tokens=8)).parts["sampling work space"]
    assert alone == 16 * 32016 * 14 + 16 * 32 * 700 * 8
    assert guessing == 32 * 32016 * 14 + 16 * 9 * 32 * 700 * 8


def test_zero_shards_what_its_stage_shards(codellama: object) -> None:
    whole = estimate(codellama, CODELLAMA).parts
    names = ("master weights", "optimizer moments", "gradients", "weights")
    for stage, divided in ((1, names[:2]), (2, names[:3]), (3, names)):
        parts = estimate(codellama, replace(CODELLAMA, gpus=8, zero=stage)).parts
        for name in names:
            assert parts[name] == pytest.approx(whole[name] / 8 if name in divided else whole[name], rel=1e-6), (stage, name)
        assert parts["reference"] == whole["reference"]


def test_adapters_need_little_more_than_the_weights(codellama: object) -> None:
    lora = replace(CODELLAMA, policy=PolicySettings("codellama", dtype="bfloat16", lora=LoRASettings(r=8)), reference=False)
    made = estimate(codellama, lora)
    rank_eight = 32 * 8 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert made.trained == rank_eight
    assert made.parts["master weights"] == 4 * rank_eight
    assert "reference" not in made.parts


def test_offloaded_state_counts_as_host_memory(codellama: object) -> None:
    made = estimate(codellama, replace(CODELLAMA, optimizer_offloaded=True, reference_offloaded=True))
    assert made.host["master weights"] + made.host["optimizer moments"] == 12 * made.parameters
    assert "master weights" not in made.parts
    assert "reference" not in made.phases["update"]
    zero = estimate(codellama, replace(CODELLAMA, optimizer_offloaded=True, zero=2, gpus=8))
    assert zero.parts["master weights"] == zero.host["master weights"] > 0, "DeepSpeed's own, beside the optimizer's"
    assert "optimizer moments" not in zero.parts


@pytest.mark.parametrize(("folder", "billions"), [("galactica_6_7b", 6.66), ("galactica_125m", 0.125)])
def test_the_other_shapes_of_the_paper(folder: str, billions: float) -> None:
    made = estimate(load_config(str(SHAPES / folder), {}), replace(CODELLAMA, policy=PolicySettings(folder, dtype="bfloat16")))
    assert made.parameters / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.parametrize("extra", [[], ["--checkpointing"], ["--lora", "16"]], ids=["full", "checkpointing", "lora"])
def test_a_real_update_needs_the_computed_memory(extra: list[str]) -> None:
    """SmolLM2-135M, two steps: peak resident memory of a separate process, within 20%."""
    model = Path(os.environ.get("REFT_SMOLLM2", ROOT / "models" / "smollm2-135m"))
    if not model.is_dir():
        pytest.skip(f"no model at {model}: make smollm2")
    command = [sys.executable, "-m", "benchmarks", "memory", "--model", str(model), *extra]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert 0.8 < json.loads(done.stdout)["computed_over_measured"] < 1.25

"""Behaviour on a CUDA device. Not yet run on one; skipped without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reft_pl.cli import main
from reft_pl.models.loading import load_policy
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.types import TokenBatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

ON_GPU = ["--trainer.accelerator", "gpu", "--trainer.devices", "1"]


def test_scores_are_those_of_the_cpu(micro_model: Path) -> None:
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"))
    ids = torch.randint(3, 100, (4, 24), generator=torch.Generator().manual_seed(1))
    real = torch.ones_like(ids, dtype=torch.bool)
    action = real.clone()
    action[:, -1] = False
    batch = TokenBatch(ids, real, action)
    with torch.no_grad():
        here = score(policy, batch).logprobs
        there = score(policy.to("cuda"), batch.to(torch.device("cuda"))).logprobs
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_offloaded_optimizer_takes_the_same_steps(dtype: torch.dtype) -> None:
    start, gradient = torch.randn(64, 64), torch.randn(64, 64)
    results = []
    for offload in (False, True):
        parameter = torch.nn.Parameter(start.to("cuda", dtype))
        optimizer = MasterAdamW([parameter], lr=1e-2, offload=offload)
        for _ in range(5):
            parameter.grad = gradient.to("cuda", dtype)
            optimizer.step()
        results.append(parameter.detach().float().cpu())
        assert optimizer.state[parameter]["exp_avg"].device.type == ("cpu" if offload else "cuda")
    torch.testing.assert_close(results[0], results[1], atol=1e-5 if dtype == torch.float32 else 1e-2, rtol=0)


def test_a_newly_offloaded_optimizer_takes_its_state_along() -> None:
    """The state comes from a run without offloading, and Lightning moves it to the GPU on load."""
    parameter = torch.nn.Parameter(torch.randn(8, 8, device="cuda"))
    optimizer = MasterAdamW([parameter], lr=1e-2, offload=True)
    moments = {"exp_avg": torch.zeros(8, 8, device="cuda"), "exp_avg_sq": torch.zeros(8, 8, device="cuda")}
    optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert {value.device.type for value in optimizer.state[parameter].values()} == {"cpu"}
    assert "master" in optimizer.state[parameter]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_chain_runs(lora: bool, overlay: Callable[..., str], tmp_path: Path) -> None:
    """SFT, ReFT and `test`, with the reference offloaded or as the base of adapters."""
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft"), *ON_GPU]) == 0
    extra = ["--model.policy.lora.r", "4"] if lora else ["--model.offload_reference", "true"]
    ppo = ["--config", "configs/ppo.yaml", "--config", overlay("ppo", init_from=tmp_path / "sft" / "hf"), *extra]
    assert main(["fit", *ppo, *ON_GPU]) == 0
    assert main(["test", *ppo, *ON_GPU]) == 0
    assert json.loads((tmp_path / "ppo" / "results.json").read_text())["test"].keys() == {"ordinary", "unseen"}


def test_the_memory_of_an_update_is_as_computed(micro_model: Path) -> None:
    """Activations of a micro-batch, compared with the allocated memory."""
    from reft_pl.models.activations import activations, empty_model
    from reft_pl.models.pretrained import load_config

    config = load_config(str(micro_model), {})
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 256, 1024, 8
    expected = activations(empty_model(config, torch.bfloat16), 16, 256).kept(recompute=False)
    with torch.device("cuda"):
        from transformers import AutoModelForCausalLM

        lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    before = torch.cuda.memory_allocated()
    hidden = lm.base_model(input_ids=torch.zeros(16, 256, dtype=torch.int64, device="cuda"), use_cache=False).last_hidden_state
    kept = torch.cuda.memory_allocated() - before - hidden.untyped_storage().nbytes()
    assert kept == pytest.approx(expected, rel=0.2)

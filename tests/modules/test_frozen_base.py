"""Stages that train LoRA adapters: updates, checkpoints, exports and the next stage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reft_pl.cli import main
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import BasePolicy
from reft_pl.models.settings import LoRASettings, PolicySettings
from tests.modules.iteration import iterate

Overlay = Callable[..., str]


@pytest.fixture
def base(micro_model: Path, tmp_path: Path) -> Path:
    """A model folder to adapt, with a tokenizer."""
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"), seed=4)
    for parameter in policy.lm.parameters():  # the usual 0.02 makes every distribution nearly uniform
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    policy.lm.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_text((micro_model / name).read_text())
    return tmp_path / "base"


def lora(base: Path, **settings: Any) -> PolicySettings:
    return PolicySettings(str(base), dtype="float32", lora=LoRASettings(r=4, **settings))


def test_before_any_update_the_policy_is_its_reference(tmp_path: Path, micro_model: Path, base: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, batches=2, policy=lora(base), ppo_epochs=2)
    first, second = recorder.statistics
    assert first["rollout/kl"] == pytest.approx(0, abs=1e-6)
    assert first["update/ratio"] > 0
    assert abs(second["rollout/kl"]) > 1e-6, "the reference stays where the policy began"
    assert isinstance(module.reference, BasePolicy)
    assert module.reference.lm is module.policy.lm, "no second copy"
    changed = {k for k, v in module.state_dict().items() if not torch.equal(v, recorder.before[k])}
    assert {k for k in changed if "lora_" not in k} == {"policy.value_head.weight", "policy.value_head.bias"}
    assert len(changed) == 2 + 2 * 2 * 7, "both halves of the adapters of seven layers in each of two blocks"


def test_the_sampler_uses_the_adapters(tmp_path: Path, micro_model: Path, base: Path) -> None:
    _, recorder = iterate(tmp_path, micro_model, batches=2, policy=lora(base), ppo_epochs=4)
    rollout = recorder.rollouts[1]
    assert (rollout.logprobs - rollout.ref_logprobs).abs().max() > 1e-3
    for row, sample in enumerate(rollout.samples):
        scored = rollout.logprobs[row][rollout.tokens.action_mask[row]]
        torch.testing.assert_close(scored, torch.tensor(sample.completion.logprobs), atol=1e-4, rtol=0)


def checkpoint(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return found


def stage(name: str, overlay: Overlay, run: str, init_from: Path, epochs: int = 1, **settings: Any) -> list[str]:
    model = {"init_args": {"policy": {"lora": {"r": 4, **settings}}}}
    path = overlay(run, init_from=init_from, model=model, trainer={"max_epochs": epochs})
    return ["--config", f"configs/{name}.yaml", "--config", path]


@pytest.mark.slow
@pytest.mark.parametrize("export", [pytest.param("merged", marks=pytest.mark.slow), "adapter"])
def test_warm_up_and_reft_with_adapters(export: str, overlay: Overlay, base: Path, tmp_path: Path) -> None:
    """SFT, ReFT from its export, test and predict all use the exported weights."""
    sft = stage("sft", overlay, "sft", base, export=export)
    assert main(["fit", *sft]) == 0
    warm_up = tmp_path / "sft" / "hf"
    assert (warm_up / "config.json").exists() == (export == "merged")
    assert (warm_up / "adapter_config.json").exists() == (export == "adapter")
    kept = checkpoint(tmp_path / "sft", "last")
    assert all("lora_" in key for key in kept["state_dict"]), "no frozen weight is in a checkpoint"
    ppo = stage("ppo", overlay, "ppo", warm_up)
    assert main(["fit", *ppo]) == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "ppo" / "hf")
    for run, arguments in (("sft", sft), ("ppo", ppo)):
        assert main(["test", *arguments]) == 0
        exported = json.loads((tmp_path / run / "hf" / "reft.json").read_text())["weights"]
        tested = json.loads((tmp_path / run / "results.json").read_text())["test"]
        assert {figures["weights"] for figures in tested.values()} == {exported}
        assert main(["test", *arguments, "--ckpt_path", str(tmp_path / run / "hf")]) == 0
        (results,) = (tmp_path / run / "tests").glob("*/results.json")
        assert {figures["weights"] for figures in json.loads(results.read_text())["test"].values()} == {exported}


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(overlay: Overlay, base: Path, tmp_path: Path) -> None:
    """ReFT with adapters, interrupted between epochs, ends bitwise equal to an uninterrupted run."""
    whole = stage("ppo", overlay, "whole", base, epochs=2, dropout=0.1)
    assert main(["fit", *whole]) == 0
    for epochs in (1, 2):
        assert main(["fit", *stage("ppo", overlay, "parts", base, epochs=epochs, dropout=0.1)]) == 0
    one, other = checkpoint(tmp_path / "whole", "last"), checkpoint(tmp_path / "parts", "last")
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    exports = [tmp_path / run / "hf" / "model.safetensors" for run in ("whole", "parts")]
    assert exports[0].read_bytes() == exports[1].read_bytes()


def test_adapters_of_another_base_are_refused(
    overlay: Overlay, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = stage("sft", overlay, "sft", base)
    assert main(["fit", *arguments]) == 0
    other = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        other.model.norm.weight.add_(0.5)
    other.save_pretrained(base)
    assert main(["test", *arguments]) == 2
    assert "is no longer the model that the adapters in" in capsys.readouterr().err


def test_settings_come_from_the_command_line(overlay: Overlay, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["--config", "configs/sft.yaml", "--config", overlay("sft", init_from=base)]
    assert main(["fit", *plain, "--model.policy.lora.r", "2", "--model.policy.lora.export", "adapter", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "export: adapter" in printed
    assert "r: 2" in printed
    assert main(["fit", *plain, "--model.policy.lora.r", "0"]) == 2
    assert "r and alpha must be at least 1" in capsys.readouterr().err

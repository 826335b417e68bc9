"""Runs of two processes: saved, killed, resumed, tested, sampled from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .runs import forked, joined, last_weights, lines, on_two_cpus, same, weights


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_two_ranks_fit_save_resume_and_test(
    strategy: str, arguments: Callable[..., list[str]], tmp_path: Path, micro_model: Path
) -> None:
    """A resumed run ends like an uninterrupted one; its files are complete, without duplicates."""
    output = forked(
        "commands", 2,
        *joined(
            arguments("fit", strategy, "whole"),
            arguments("fit", strategy, "halves", "--trainer.max_epochs", "1"),
            arguments("fit", strategy, "halves"),
            arguments("test", strategy, "halves"),
        ),
        folder=tmp_path,
    )  # fmt: skip
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert output.count("resuming from") == output.count("ordinary: Top-1") == 1, "once, not once a rank"
    same(whole, halves)
    rows = lines(halves / "rollouts.jsonl")
    assert len(rows) == 2 * 12
    for epoch in (0, 1):  # no question is lost or met twice
        assert len({row["id"] for row in rows if int(str(row["step"])) // 3 == epoch}) == 12
    results = json.loads((halves / "results.json").read_text())
    assert results["fit"]["optimizer_steps"] == 2 * 3 * 2
    for name in ("ordinary", "unseen"):
        predictions = lines(halves / "predictions" / f"{name}.jsonl")
        assert results["test"][name]["n"] == len(predictions) == len({row["item_id"] for row in predictions}) == 4
    checkpoint = torch.load(halves / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu")
    assert not any("reference" in name or "sampler" in name for name in checkpoint["state_dict"])
    # The model gets nothing right, so that its first validation is the best, and its last weights are others.
    assert results["fit"]["best"]["batch"] == 3 < results["fit"]["batches"] == 6
    own, last = weights(halves), last_weights(halves)
    assert own
    for name, weight in own.items():
        full = f"policy.{name}" if name.startswith("value_head") else f"policy.lm.{name}"
        assert torch.equal(checkpoint["state_dict"][full], weight)
        assert name == "value_head.bias" or not torch.equal(last[full], weight)
    # One process tests the same weights, and finds the same.
    before = {name: lines(halves / "predictions" / f"{name}.jsonl") for name in ("ordinary", "unseen")}
    forked("commands", 1, *arguments("test", "one", "halves"), folder=tmp_path)
    assert before == {name: lines(halves / "predictions" / f"{name}.jsonl") for name in before}
    if strategy != "ddp":
        parts = sorted(path.name for path in (halves / "checkpoints" / "last.ckpt" / "checkpoint").iterdir())
        assert len([name for name in parts if name.endswith("optim_states.pt")]) == 2
        for path in (halves / "checkpoints" / "last.ckpt" / "checkpoint").glob("*model_states.pt"):
            stored = torch.load(path, map_location="cpu", weights_only=False)
            assert not any("reference" in name or "sampler" in name for name in stored["module"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_a_kill_during_saving_keeps_the_last_good_checkpoint(
    strategy: str, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    forked("killed_while_saving", *arguments("fit", strategy, "killed"), folder=tmp_path, fails=True)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    assert len(list((last / "checkpoint").glob("*optim_states.pt"))) == 2
    assert (tmp_path / "killed-in-the-middle").exists()  # the other rank may have removed the partial folder already
    both = joined(arguments("fit", strategy, "killed"), arguments("fit", strategy, "whole"))
    assert "resuming from" in forked("commands", 2, *both, folder=tmp_path)
    same(tmp_path / "whole", tmp_path / "killed")
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_schedule_and_optimizer_state_resume(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """SFT in bfloat16 with a decaying learning rate; DeepSpeed holds the master weights."""
    further = ["--model.policy.dtype", "bfloat16", "--model.schedule.kind", "linear", "--model.schedule.epochs", "3"]
    commands = []
    for strategy in ("ddp", "zero1", "zero2", "zero3"):
        for run, epochs in ((f"{strategy}-whole", 2), (f"{strategy}-halves", 1), (f"{strategy}-halves", 2)):
            commands.append(
                arguments("fit", strategy, run, *further, "--trainer.max_epochs", str(epochs), stage="sft", plain=True)
            )
    forked("commands", 2, *joined(*commands), folder=tmp_path)
    for strategy in ("ddp", "zero1", "zero2", "zero3"):
        same(tmp_path / f"{strategy}-whole", tmp_path / f"{strategy}-halves")
        assert all(weight.dtype == torch.bfloat16 for weight in weights(tmp_path / f"{strategy}-whole").values())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_two_ranks_validate_and_share_sampling(strategy: str, arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    run = ["--run_dir", str(tmp_path / "run")]
    exports = ("--trainer.callbacks+", "reft_pl_callbacks.ExportHF")
    fit = arguments("fit", strategy, "run", "--trainer.max_epochs", "1", *exports, stage="sft", plain=True)
    validate = arguments("validate", strategy, "run", stage="sft", plain=True)
    predict = ["predict", "--config", "configs/sample.yaml", *on_two_cpus(strategy), *run]
    predict += ["--data.max_tokens", "200", "--data.max_prompt_tokens", "190", "--data.test.ordinary.size", "7"]
    predict += ["--model.n", "2", "--data.eval_batch_size", "2", "--data.predict", "[ordinary]"]
    output = forked("commands", 2, *joined(fit, validate, predict), folder=tmp_path)
    assert output.count("ordinary: 2 samples of 7 questions") == 1
    assert len(lines(tmp_path / "run" / "samples" / "ordinary.jsonl")) == 7
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["validation"]["val/top1"] == results["fit"]["best"]["val/top1"]
    assert results["samples"]["ordinary"]["questions"] == 7
    on_the_way, at_last = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("hf-step-3", "hf"))
    assert all(torch.equal(on_the_way[name], at_last[name]) for name in at_last), "one validation: it is the best"


@pytest.mark.slow
def test_the_command_starts_its_ranks(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """``reft-pl fit`` with two devices: Lightning starts the second process by the same command line."""
    command = [str(Path(sys.executable).parent / "reft-pl"), *arguments("fit", "ddp", "run", "--trainer.max_epochs", "1")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=590, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("best model in") == 1
    assert len(lines(tmp_path / "run" / "rollouts.jsonl")) == 12


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_compiled_layers_on_several_ranks(strategy: str, arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """Numbers of micro-batches differ between ranks; rank 0 writes the figures of all."""
    compiled = ["--model.policy.compile", "true", "--trainer.max_epochs", "1"]
    output = forked("commands", 2, *arguments("fit", strategy, "run", *compiled), folder=tmp_path)
    assert "layers run uncompiled" not in output
    assert json.loads((tmp_path / "run" / "results.json").read_text())["fit"]["optimizer_steps"] == 6


@pytest.mark.slow
def test_zero_3_refuses_compiled_layers(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    run = arguments("fit", "zero3", "run", "--model.policy.compile", "true")
    output = forked("commands", 2, *run, folder=tmp_path, fails=True)
    assert (
        "ZeRO-3 gathers weights inside layers, which compiled layers do not allow: set model.policy.compile to false" in output
    )

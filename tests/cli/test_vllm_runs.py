"""PPO with vLLM from the command line: the shipped overlays, their logs, and an engine that dies during training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from reft_pl.cli import main
from reft_pl.evaluation.report.scalars import read_curves

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
pytest.importorskip("vllm", reason="make vllm")

Overlay = Callable[..., str]

REWARD = """
import os, signal
from reft_pl.reward.base import RewardFunction


class Deadly(RewardFunction):
    calls = 0

    def __init__(self, pid: int):
        self.pid = pid

    def score(self, samples):
        Deadly.calls += 1
        if Deadly.calls == 2 and self.pid:
            os.kill(self.pid, signal.SIGKILL)
        return [len(sample.completion.token_ids) % 5 / 5 for sample in samples]
"""


@pytest.fixture
def wide(micro_model: Path, tmp_path: Path) -> Path:
    """The micro model with the head width that vLLM's CPU attention needs."""
    folder = tmp_path / "wide"
    shutil.copytree(micro_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64, "head_dim": 32}))
    return folder


@pytest.fixture
def arguments(overlay: Overlay, wide: Path) -> Callable[..., list[str]]:
    def of(run: str, rollout: str) -> list[str]:
        small = overlay(run, model={"init_args": {"policy": {"init_from": str(wide)}, "minibatch_size": 4}})
        return ["--config", "configs/ppo.yaml", "--config", f"configs/rollout/{rollout}.yaml", "--config", small]

    return of


@pytest.fixture
def start_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[str, subprocess.Popen[str]]]]:
    monkeypatch.setenv("REFT_PL_TOKEN", "a-token-of-the-tests")
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[str, subprocess.Popen[str]]:
        code = "import sys; from reft_pl.cli import main; sys.exit(main())"
        settings = ["--port", "0", "--enforce_eager", "--cache_gib", "0.125"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, "rollout-server", *settings], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().split()[3].rstrip(";"), process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_fit_test_and_predict_in_one_process(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = ["--model.sampler.enforce_eager", "true", "--model.sampler.cache_gib", "0.125"]
    run = arguments("vllm", "vllm") + engine
    assert main(["fit", *run, "--model.importance_clip", "2"]) == 0
    curves = read_curves(tmp_path / "vllm")
    mismatch, largest = (curves[f"rollout/sampler_mismatch{end}"].values for end in ("", "_max"))
    assert len(mismatch) == 6
    assert 0 < max(mismatch) < 1e-4, "float32 on both sides"
    assert all(0 < mean <= most < 1e-2 for mean, most in zip(mismatch, largest, strict=True))
    assert curves["rollout/importance"].values == pytest.approx([1.0] * 6, abs=1e-4)
    assert curves["rollout/importance_cut"].values == [0.0] * 6
    weights = torch.load(tmp_path / "vllm" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("sampler" in name or "engine" in name for name in weights)
    assert main(["test", *run]) == 0
    assert json.loads((tmp_path / "vllm" / "results.json").read_text())["test"]["ordinary"]["n"] == 4
    capfd.readouterr()


def test_a_killed_server_ends_the_run_and_the_same_command_resumes_it(
    arguments: Callable[..., list[str]],
    start_server: Callable[[], tuple[str, subprocess.Popen[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "deadly_reward.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    url, server = start_server()
    run = [*arguments("killed", "vllm_server"), "--model.reward", "deadly_reward.Deadly", "--trainer.num_sanity_val_steps", "0"]
    assert main(["fit", *run, "--model.reward.pid", str(server.pid), "--model.sampler.url", url]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"reft-pl fit: the rollout server at {url} is unreachable or disconnected (")
    assert "repeat the command to resume from the last checkpoint" in error
    assert server.wait(timeout=60) == -signal.SIGKILL
    checkpoint = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)
    done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    assert 1 <= done < 6
    assert not (tmp_path / "killed" / "hf").exists(), "the run has not ended"
    url, _ = start_server()
    assert main(["fit", *run, "--model.reward.pid", str(server.pid), "--model.sampler.url", url]) == 0
    assert "resuming from" in capfd.readouterr().out
    assert len(read_curves(tmp_path / "killed")["rollout/sampler_mismatch"].values) == 6
    assert (tmp_path / "killed" / "hf" / "model.safetensors").exists()


def test_two_ranks_need_two_servers(
    arguments: Callable[..., list[str]],
    start_server: Callable[[], tuple[str, subprocess.Popen[str]]],
    tmp_path: Path,
) -> None:
    urls = [start_server()[0] for _ in range(2)]
    strategy = ["--config", "configs/strategy/ddp.yaml", "--config", "configs/strategy/two_cpus.yaml"]
    run = [*arguments("ranks", "vllm_server"), *strategy]
    command = [str(Path(sys.executable).parent / "reft-pl"), "fit", *run, "--model.sampler.url"]
    few = subprocess.run([*command, urls[0]], capture_output=True, text=True, check=False, timeout=300)
    assert few.returncode == 2
    assert "each of the 2 training processes needs an engine, and VLLMServerSampler has 1" in few.stderr
    assert subprocess.run([*command, json.dumps(urls)], check=False, timeout=300).returncode == 0
    mismatch = read_curves(tmp_path / "ranks")["rollout/sampler_mismatch"].values
    assert len(mismatch) == 6
    assert 0 < max(mismatch) < 1e-4, "both engines sampled with the policy's weights in every rollout"

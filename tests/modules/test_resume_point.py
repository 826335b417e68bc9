"""A run stopped by limits or signals, then resumed, ends with the weights of an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.modules.stops import SIGNAL_AT, assert_same_run, fit, last

Overlay = Callable[..., str]

CONSTANT: dict[str, Any] = {"init_args": {"schedule": {"kind": "constant", "epochs": None, "warmup": 0}}}


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_epochs": -1, "max_steps": 6, "check_val_every_n_epoch": 1},
        pytest.param({"max_epochs": 2, "check_val_every_n_epoch": 1}, marks=pytest.mark.slow),
        pytest.param({"max_epochs": 2, "check_val_every_n_epoch": 1, "val_check_interval": 2}, marks=pytest.mark.slow),
        pytest.param({"max_epochs": 2, "check_val_every_n_epoch": 1, "limit_val_batches": 0}, marks=pytest.mark.slow),
    ],
    ids=["steps", "epochs", "validation within", "no validation"],
)
def test_stopped_by_max_steps_anywhere(trainer: dict[str, Any], overlay: Overlay, tmp_path: Path) -> None:
    config = overlay("run", trainer=trainer, model=CONSTANT, checkpoints={"every_n_batches": 50})
    assert fit("sft", config, tmp_path / "whole") == 0
    for stops in ([1, 3], [2, 4]):
        parts = tmp_path / f"parts{stops[0]}"
        for steps in stops:
            assert fit("sft", config, parts, "--trainer.max_steps", str(steps)) == 0
            assert (parts / "hf").is_dir()
        assert fit("sft", config, parts) == 0
        assert_same_run(tmp_path / "whole", parts)


@pytest.mark.parametrize("batch", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_stopped_by_a_callback_within_an_epoch(
    batch: int, overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "signal_at.py").write_text(SIGNAL_AT)
    monkeypatch.syspath_prepend(tmp_path)
    config = overlay("run", trainer={"max_epochs": 2}, model=CONSTANT, checkpoints={"every_n_batches": 50})
    assert fit("sft", config, tmp_path / "whole") == 0
    stop = json.dumps([{"class_path": "signal_at.StopAt", "init_args": {"batch": batch}}])
    assert fit("sft", config, tmp_path / "parts", "--trainer.callbacks", stop) == 0
    assert (tmp_path / "parts" / "hf").is_dir()
    assert fit("sft", config, tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


SLOW = """
import time

from lightning.pytorch import Callback


class Slow(Callback):
    def on_train_batch_end(self, *_):
        time.sleep(1.5)
"""


@pytest.mark.slow
def test_stopped_by_max_time(overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_batches.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    config = overlay("run", trainer={"max_epochs": 2}, model=CONSTANT, checkpoints={"every_n_batches": 50})
    assert fit("sft", config, tmp_path / "whole") == 0
    limits = ["--trainer.max_time", "00:00:00:02", "--trainer.callbacks", '[{"class_path": "slow_batches.Slow"}]']
    assert fit("sft", config, tmp_path / "parts", *limits) == 0
    assert 0 < last(tmp_path / "parts")["global_step"] < last(tmp_path / "whole")["global_step"]
    assert fit("sft", config, tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture
def signal_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Arguments of a fit that sends itself a signal."""
    (tmp_path / "signal_at.py").write_text(SIGNAL_AT)
    monkeypatch.syspath_prepend(tmp_path)

    def arguments(hook: str, n: int = 1, signum: int = signal.SIGTERM) -> list[str]:
        callback = {"class_path": "signal_at.SignalAt", "init_args": {"hook": hook, "n": n, "signum": int(signum)}}
        return ["--trainer.callbacks", json.dumps([callback])]

    return arguments


SFT_MOMENTS = [
    ("on_fit_start", 1),
    ("on_train_batch_start", 1),
    ("training update", 2),
    ("on_train_batch_end", 2),
    ("training update", 3),
    ("on_validation_batch_start", 1),
    ("on_train_epoch_end", 1),
    ("on_validation_end", 2),
    ("on_train_end", 1),
    ("on_fit_end", 1),
]


@pytest.mark.slow
def test_signals_anywhere_in_sft(
    signal_at: Callable[..., list[str]], overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = overlay("run", trainer={"max_epochs": 2, "callbacks": []}, model=CONSTANT, checkpoints={"every_n_batches": 50})
    assert fit("sft", config, tmp_path / "whole") == 0
    for index, (hook, n) in enumerate(SFT_MOMENTS):
        signum = signal.SIGINT if index % 2 else signal.SIGTERM
        run = tmp_path / f"{hook} {n}".replace(" ", "-")
        capsys.readouterr()
        assert fit("sft", config, run, *signal_at(hook, n, signum)) == 128 + signum, hook
        assert not (run / "hf").exists()
        reported = capsys.readouterr().err.strip().splitlines()[-1]
        assert reported.startswith(f"reft-pl fit: stopped by {signum.name}; "), reported
        assert "Traceback" not in reported
        assert fit("sft", config, run) == 0, hook
        assert_same_run(tmp_path / "whole", run)


@pytest.mark.parametrize(
    ("hook", "n"),
    [
        pytest.param("training rollout", 2, marks=pytest.mark.slow),
        pytest.param("rollout progress", 6, marks=pytest.mark.slow),
        pytest.param("score progress", 3, marks=pytest.mark.slow),
        ("training update", 2),
        pytest.param("validation rollout", 1, marks=pytest.mark.slow),
    ],
)
def test_signals_in_ppo(
    hook: str, n: int, signal_at: Callable[..., list[str]], overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"init_args": {"reward": {"class_path": "signal_at.Length"}, "minibatch_size": 2}}
    trainer = {"max_epochs": 2, "callbacks": [], "check_val_every_n_epoch": 1, "val_check_interval": 2}
    config = overlay("run", trainer=trainer, model=model, checkpoints={"every_n_batches": 50})
    assert fit("ppo", config, tmp_path / "whole") == 0
    assert fit("ppo", config, tmp_path / "run", *signal_at(hook, n)) == 128 + signal.SIGTERM
    assert fit("ppo", config, tmp_path / "run") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job with auto-requeue; the file to which ``scontrol`` writes its arguments."""
    job = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return asked


@pytest.mark.slow
@pytest.mark.parametrize(("hook", "n"), [("training update", 2), ("on_train_batch_end", 2), ("on_validation_batch_start", 1)])
def test_the_requeue_signal_of_slurm(
    hook: str,
    n: int,
    slurm: Path,
    signal_at: Callable[..., list[str]],
    overlay: Overlay,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = overlay("run", trainer={"max_epochs": 2, "callbacks": []}, model=CONSTANT, checkpoints={"every_n_batches": 50})
    assert fit("sft", config, tmp_path / "whole") == 0
    run = tmp_path / "run"
    assert fit("sft", config, run, *signal_at(hook, n, signal.SIGUSR1)) == 128 + signal.SIGUSR1
    assert slurm.read_text() == "requeue 7\n"
    reported = capsys.readouterr().err.strip().splitlines()[-1]
    assert reported.startswith("reft-pl fit: stopped by SIGUSR1; ")
    assert reported.endswith("; Slurm has requeued job 7")
    assert not list(run.glob("hpc_ckpt*")), "Lightning would resume from it ever after"
    assert fit("sft", config, run) == 0
    assert_same_run(tmp_path / "whole", run)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

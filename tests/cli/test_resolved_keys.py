"""Config keys that are resolved before a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from reft_pl.cli.resolved_keys import POLICY, resolved_keys

BEST = Path("runs/a/checkpoints/best.ckpt")
DEFAULT: dict[str, Any] = {"run_dir": "runs/a", "ckpt_path": None, f"{POLICY}.lora": None}


def settings(**changes: Any) -> Namespace:
    made = Namespace()
    for key, value in (DEFAULT | changes).items():
        made[key] = value
    return made


def described_by(source: str) -> dict[str, Any]:
    return {f"{POLICY}.init_from": source, "data.tokenizer": source, f"{POLICY}.from_scratch": False}


def test_fit_resolves_only_its_checkpoint() -> None:
    assert resolved_keys("fit", settings(), None, exported=True) == {"ckpt_path": None}
    last = Path("runs/a/checkpoints/last.ckpt")
    assert resolved_keys("fit", settings(), last, exported=True) == {"ckpt_path": str(last)}


@pytest.mark.parametrize(
    ("ckpt_path", "checkpoint", "folder"),
    [(None, BEST, "runs/a"), ("best", BEST, "runs/a"), ("x/last.ckpt", Path("x/last.ckpt"), "runs/a/tests/x--last")],
)
def test_a_checkpoint_is_described_by_the_runs_export(ckpt_path: str | None, checkpoint: Path, folder: str) -> None:
    keys = resolved_keys("test", settings(ckpt_path=ckpt_path), checkpoint, exported=True)
    assert keys == {"ckpt_path": str(checkpoint), "trainer.default_root_dir": folder, **described_by("runs/a/hf")}


def test_a_checkpoint_of_adapters_keeps_its_base() -> None:
    keys = resolved_keys("test", settings(**{f"{POLICY}.lora": Namespace(r=4)}), BEST, exported=True)
    assert keys == {"ckpt_path": str(BEST), "trainer.default_root_dir": "runs/a"}


def test_a_checkpoint_without_an_export_keeps_the_config() -> None:
    keys = resolved_keys("validate", settings(), BEST, exported=False)
    assert keys == {"ckpt_path": str(BEST), "trainer.default_root_dir": "runs/a"}


@pytest.mark.parametrize(
    ("ckpt_path", "source", "folder"), [(None, "runs/a/hf", "runs/a"), ("org/model", "org/model", "runs/a/tests/org--model")]
)
def test_a_model_folder_or_hub_id_contains_its_adapters(ckpt_path: str | None, source: str, folder: str) -> None:
    keys = resolved_keys("predict", settings(ckpt_path=ckpt_path, **{f"{POLICY}.lora": Namespace(r=4)}), None, exported=True)
    assert keys == {"ckpt_path": None, "trainer.default_root_dir": folder, f"{POLICY}.lora": None, **described_by(source)}

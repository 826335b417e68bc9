"""A run that is stopped, by its own limits or a signal, ends with the weights of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.modules.stops import SIGNAL_AT, assert_same_run, fit

Overlay = Callable[..., str]

CONSTANT: dict[str, Any] = {"init_args": {"schedule": {"kind": "constant", "epochs": None, "warmup": 0}}}


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_epochs": -1, "max_steps": 6, "check_val_every_n_epoch": 1},
        {"max_epochs": 2, "check_val_every_n_epoch": 1},
        {"max_epochs": 2, "check_val_every_n_epoch": 1, "val_check_interval": 2},
        {"max_epochs": 2, "check_val_every_n_epoch": 1, "limit_val_batches": 0},
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

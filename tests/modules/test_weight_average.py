"""The exponential moving average of the weights: its arithmetic, checkpoints, resume, and what is validated and exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reft_pl.cli import main
from reft_pl.modules.weight_average import AVERAGE, WeightAverage
from tests.modules.stops import assert_same_run

Overlay = Callable[..., str]


class Tied(nn.Module):
    """A trained weight with two names, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head, self.frozen = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False), nn.Linear(1, 1)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)


def set_to(module: Tied, value: float) -> None:
    with torch.no_grad():
        module.embedding.weight.fill_(value)


def test_average_by_hand() -> None:
    module = Tied()
    average = WeightAverage(module, decay=0.75)
    set_to(module, 4.0)
    average.enter()  # before the start there is no average
    assert module.embedding.weight.tolist() == [[4.0, 4.0]]
    average.start()
    for value in (8.0, 0.0):
        set_to(module, value)
        average.update()
    average.enter()
    assert module.head.weight.tolist() == [[3.75, 3.75]]  # 0.75 * (0.75 * 4 + 0.25 * 8) + 0.25 * 0
    average.leave()
    assert module.embedding.weight.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("inside", [False, True])
def test_a_checkpoint_holds_both_whichever_is_in_the_module(inside: bool) -> None:
    module = Tied()
    average = WeightAverage(module, decay=0.5)
    set_to(module, 2.0)
    average.start()
    set_to(module, 4.0)
    average.update()
    if inside:
        average.enter()
    best: dict[str, Any] = {"state_dict": dict(module.state_dict())}
    last: dict[str, Any] = {"state_dict": dict(module.state_dict()), "optimizer_states": []}
    average.write_into(best)
    average.write_into(last)
    for name in ("embedding.weight", "head.weight"):
        assert best["state_dict"][name].tolist() == [[3.0, 3.0]]
        assert last["state_dict"][name].tolist() == [[4.0, 4.0]]
    assert AVERAGE not in best
    assert {name: tensor.tolist() for name, tensor in last[AVERAGE].items()} == {"embedding.weight": [[3.0, 3.0]]}
    restored = WeightAverage(module, decay=0.5)
    restored.read_from(last)
    restored.start()
    restored.enter()
    assert module.head.weight.tolist() == [[3.0, 3.0]]


def test_bfloat16_weights_are_averaged_in_float32() -> None:
    module = Tied().to(torch.bfloat16)
    average = WeightAverage(module, decay=0.999)
    set_to(module, 1.0)
    average.start()
    set_to(module, 1.0078125)  # the next bfloat16 number
    for _ in range(800):
        average.update()
    average.enter()
    assert module.embedding.weight[0, 0].item() == 1.0078125
    average.leave()


def fit(config: str, *more: str) -> None:
    assert (
        main(
            [
                "fit",
                "--config",
                "configs/sft.yaml",
                "--config",
                config,
                "--model.ema_decay",
                "0.5",
                "--model.schedule.kind",
                "constant",
                "--model.schedule.warmup",
                "0",
                *more,
            ]
        )
        == 0
    )


def test_the_average_is_validated_exported_and_resumed(overlay: Overlay, tmp_path: Path) -> None:
    schedule = {"trainer": {"max_epochs": 4, "check_val_every_n_epoch": 2}}
    fit(overlay("whole", **schedule))
    fit(overlay("stopped", **schedule), "--trainer.max_steps", "7")
    fit(overlay("stopped", **schedule))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    last = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=False)
    best = torch.load(tmp_path / "whole" / "checkpoints" / "best.ckpt", weights_only=False)["state_dict"]
    average = last[AVERAGE]
    assert any(not torch.equal(last["state_dict"][name], average[name]) for name in average)
    batches = json.loads((tmp_path / "whole" / "results.json").read_text())["fit"]
    if batches["best"]["batch"] == batches["batches"]:
        assert all(torch.equal(best[name], average[name]) for name in average)


def test_decays_outside_the_unit_interval_are_refused(overlay: Overlay, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft"), "--model.ema_decay", "1"]) == 2
    assert "model.ema_decay is 1.0, but must be at least 0 and below 1" in capsys.readouterr().err

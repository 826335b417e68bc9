"""Resume and test runs with another number of ranks or another strategy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings
from reft_pl.strategies.sharded_checkpoint import stored_client_state

from .runs import apart, flat, forked, joined, lines, same, weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "before", "ranks", "after"),
    [
        ("adam", "zero1", 1, "zero1"),
        ("adam", "zero2", 1, "zero2"),
        ("adam", "zero3", 1, "zero3"),
        ("sgd", "zero2", 1, "zero2"),
        ("sgd", "zero2", 2, "zero3"),
        ("sgd", "ddp", 2, "zero2"),
        ("sgd", "zero3", 1, "one"),
        ("sgd", "zero2", 2, "ddp"),
    ],
)
def test_a_run_moves_to_other_ranks_and_strategies(
    optimizer: str, before: str, ranks: int, after: str, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The run ends like an uninterrupted one, up to rounding. SGD has no optimizer state to lose."""
    further = ["--data.validation", "null"]  # without validation the last weights are exported
    if optimizer == "sgd":
        further += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.3"]
    one_epoch = arguments("fit", before, "moved", *further, "--trainer.max_epochs", "1")
    forked("commands", 2, *joined(arguments("fit", before, "whole", *further), one_epoch), folder=tmp_path)
    start = flat(weights(tmp_path / "moved"))
    moves = arguments("fit", after, "moved", *further, "--trainer.devices", str(ranks))
    output = forked("commands", ranks, *moves, folder=tmp_path)
    assert output.count("the optimizer state is not") == (optimizer == "sgd")
    if (optimizer, ranks, after) == ("sgd", 1, "zero2"):
        assert "which DeepSpeed cannot convert to a universal checkpoint (" in output, "why, too"
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    samples = [sorted(map(str, lines(run / "rollouts.jsonl"))) for run in (whole, moved)]
    assert samples[0] == samples[1]
    assert apart(flat(weights(whole)) - start, flat(weights(moved)) - start) < 1e-4
    assert sorted(path.name for path in (moved / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.fixture
def adapters(micro_model: Path, tmp_path: Path) -> list[str]:
    """Settings of LoRA on a model folder with a tied LM head."""
    load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32")).lm.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_text((micro_model / name).read_text())
    base = ["--model.policy.init_from", str(tmp_path / "base"), "--model.policy.from_scratch", "false"]
    return [*base, "--model.policy.lora.r", "4"]


def holds_adapters_alone(checkpoint: Path) -> None:
    """Check that no part holds weights of the base, or their names."""
    files = sorted(checkpoint.rglob("*model_states.pt")) if checkpoint.is_dir() else [checkpoint]
    for file in files:
        stored = torch.load(file, weights_only=False, map_location="cpu")
        names = set(stored["module"] if checkpoint.is_dir() else stored["state_dict"])
        assert names
        assert all("lora" in name or "value_head" in name for name in names), "the base is what init_from holds"
        assert not stored.get("frozen_param_fragments")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_adapters_are_trained_saved_resumed_and_tested(
    strategy: str, adapters: list[str], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    commands = []
    for verb, run, epochs in (("fit", "whole", 2), ("fit", "halves", 1), ("fit", "halves", 2), ("test", "halves", 2)):
        commands.append(arguments(verb, strategy, run, *adapters, "--trainer.max_epochs", str(epochs)))
    forked("commands", 2, *joined(*commands), folder=tmp_path)
    same(tmp_path / "whole", tmp_path / "halves")
    for name in ("best", "last"):
        holds_adapters_alone(tmp_path / "halves" / "checkpoints" / f"{name}.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "after"), [(2, "zero2"), (1, "zero3"), (1, "one")])
def test_adapters_move_to_other_ranks_and_strategies(
    ranks: int, after: str, adapters: list[str], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The reference of ReFT is the base of the adapters, under any strategy."""
    further = [*adapters, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.3", "--data.validation", "null"]
    if ranks == 1 and after == "zero3":  # by a universal checkpoint, which takes Adam's averages along
        further = [*adapters, "--data.validation", "null"]
    first = arguments("fit", "zero3", "moved", *further, "--trainer.max_epochs", "1")
    forked("commands", 2, *joined(arguments("fit", "zero3", "whole", *further), first), folder=tmp_path)
    last = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    stored = stored_client_state(last)
    base = load_policy(PolicySettings(str(tmp_path / "base"), dtype="float32"))
    assert stored["reft_reference"] == stored["reft_base"] == fingerprint(base)
    start = flat(weights(tmp_path / "moved"))
    forked("commands", ranks, *arguments("fit", after, "moved", *further, "--trainer.devices", str(ranks)), folder=tmp_path)
    holds_adapters_alone(last)
    changes = [flat(weights(tmp_path / run)) - start for run in ("whole", "moved")]
    assert apart(*changes) < 1e-4


@pytest.mark.slow
def test_a_run_that_cannot_write_a_copy_stops_and_resumes_later(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """A full disk does not lose the optimizer state."""
    forked("commands", 2, *arguments("fit", "zero2", "run", "--trainer.max_epochs", "1"), folder=tmp_path)
    go_on = arguments("fit", "zero2", "run", "--trainer.devices", "1")
    output = forked("commands", 1, *go_on, folder=tmp_path, fails=True, largest_file=40_000)
    assert "make room in" in output
    assert "Traceback" not in output
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert "the optimizer state is not" not in forked("commands", 1, *go_on, folder=tmp_path)


@pytest.mark.slow
def test_a_sharded_folder_is_tested_under_any_strategy(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    forked("commands", 2, *arguments("fit", "zero3", "run", "--trainer.max_epochs", "1"), folder=tmp_path)
    forked("commands", 1, *arguments("test", "one", "run", "--ckpt_path", "last"), folder=tmp_path)
    best, last = (json.loads((tmp_path / "run" / path).read_text()) for path in ("hf/reft.json", "tests/last/results.json"))
    assert last["test"]["ordinary"]["weights"] == best["weights"], "one epoch, one validation: the last is the best"

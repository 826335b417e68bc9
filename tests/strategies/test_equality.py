"""Two ranks train as one does, under every strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from .runs import apart, flat, forked, relative

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")


def distances(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Largest relative differences over the steps of two recorded runs (``scenarios.train``).

    Of losses, gradient norms and logged figures; of the change of all weights in each step, and since the start.
    """
    start, other_start = one["steps"][0]["before"], other["steps"][0]["before"]
    assert all(torch.equal(start[name], other_start[name]) for name in start)
    found = {"loss": 0.0, "gradient_norm": 0.0, "change": 0.0, "whole_change": 0.0, "logged": 0.0}
    last, other_last = flat(start), flat(start)
    for a, b in zip(one["steps"], other["steps"], strict=True):
        assert a["result"]["skipped"] == b["result"]["skipped"] == 0
        for name in ("loss", "gradient_norm"):
            found[name] = max(found[name], relative(a["result"][name], b["result"][name]))
        now, other_now = flat(a["weights"]), flat(b["weights"])
        found["change"] = max(found["change"], apart(now - last, other_now - other_last))
        found["whole_change"] = max(found["whole_change"], apart(now - flat(start), other_now - flat(start)))
        last, other_last = now, other_now
    for a, b in zip(one["logged"], other["logged"], strict=True):
        names = {name for name in a if "second" not in name}  # seconds, and what is counted a second
        assert names == {name for name in b if "second" not in name}
        found["logged"] = max(found["logged"], *(relative(a[name], b[name]) for name in names))
    return found


def load(folder: Path, stage: str, name: str, optimizer: str) -> dict[str, Any]:
    recorded: dict[str, Any] = torch.load(folder / f"{stage}-{name}-{optimizer}.pt", weights_only=True)
    return recorded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "optimizer"),
    [
        ("sft", "sgd"),
        ("reranker", "sgd"),
        ("ppo", "adam"),
        ("values", "adam"),
        ("annotated", "adam"),
        ("grpo", "sgd"),
        ("rewards", "adam"),
        ("online", "adam"),
    ],
)
def test_two_ranks_train_as_one(stage: str, optimizer: str, micro_model: Path, tmp_path: Path) -> None:
    """The same samples, losses, gradients and changes of weights, with several micro-batches a step, clipped.

    SGD shows the gradient itself. Ranks have responses of different lengths, other numbers of micro-batches, and some none.
    """
    # ZeRO refuses the settings of values, and rewards do not depend on the strategy.
    strategies = STRATEGIES[:1] if stage in ("values", "rewards") else STRATEGIES
    cases = [f"{stage}:{optimizer}:{name}" for name in ("one", *strategies)]
    forked("equality", micro_model, tmp_path, *cases, folder=tmp_path)
    one = load(tmp_path, stage, "one", optimizer)
    assert max(one["micro_batches"][0]) > 1
    assert len(one["samples"]) == (0 if stage in ("sft", "reranker") else 2)
    assert all(step["result"]["gradient_norm"] > 0.3 for step in one["steps"])
    for name in strategies:
        other = load(tmp_path, stage, name, optimizer)
        assert other["micro_batches"][0] != other["micro_batches"][1], "ranks differ in their numbers of micro-batches"
        assert other["samples"] == one["samples"]
        apart = distances(one, other)
        print(stage, name, apart)
        assert max(apart.values()) < 1e-5, (name, apart)


@pytest.mark.slow
def test_a_bad_loss_on_one_rank_stops_the_step_on_all(micro_model: Path, tmp_path: Path) -> None:
    names = ("ddp", "zero1", "zero2", "zero3")
    forked("not_finite", micro_model, tmp_path, *names, folder=tmp_path)
    for name in names:
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for found in ranks:
            assert [step["result"]["skipped"] for step in found["steps"]] == [0, 1, 0]
            assert found["global_step"] == 2
            good, bad, again = (step["weights"] for step in found["steps"])
            assert all(torch.equal(good[n], bad[n]) for n in good)
            assert all(torch.isfinite(again[n]).all() for n in again)
            assert any(not torch.equal(bad[n], again[n]) for n in again)
        mine, theirs = (found["steps"][2]["weights"] for found in ranks)
        assert all(torch.equal(mine[n], theirs[n]) for n in mine)

"""How far two recorded runs are apart; see ``scenarios.train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load(folder: Path, stage: str, name: str, optimizer: str) -> dict[str, Any]:
    recorded: dict[str, Any] = torch.load(folder / f"{stage}-{name}-{optimizer}.pt", weights_only=True)
    return recorded


def distances(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Largest relative differences over the steps: of losses, gradient norms and changes of weights, and of what was logged.

    The change of a weight tensor is compared by norm, in each step and over all of them.
    """
    assert len(one["steps"]) == len(other["steps"])
    found = {"loss": 0.0, "gradient_norm": 0.0, "step": 0.0, "whole": 0.0, "logged": 0.0}
    start = last = one["steps"][0]["before"]
    other_last = other["steps"][0]["before"]
    assert all(torch.equal(start[name], other_last[name]) for name in start)
    for a, b in zip(one["steps"], other["steps"], strict=True):
        assert a["result"]["skipped"] == b["result"]["skipped"] == 0
        for name in ("loss", "gradient_norm"):
            found[name] = max(found[name], relative(a["result"][name], b["result"][name]))
        for name, weight in a["weights"].items():
            change, other_change = weight - last[name], b["weights"][name] - other_last[name]
            assert change.any() or not other_change.any()
            found["step"] = max(found["step"], apart(change, other_change))
            found["whole"] = max(found["whole"], apart(weight - start[name], b["weights"][name] - start[name]))
        last, other_last = a["weights"], b["weights"]
    for a, b in zip(one["logged"], other["logged"], strict=True):
        names = {name for name in a if "second" not in name}
        assert names == {name for name in b if "second" not in name}
        for name in names:
            found["logged"] = max(found["logged"], relative(a[name], b[name]))
    return found


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), 1e-3)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm().clamp(min=1e-12))

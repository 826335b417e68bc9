"""Valid and invalid returns of a reward; the error names the problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.reward.outcomes import outcomes
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason


def samples(n: int) -> list[Sample]:
    completion = Completion("q", 0, (1,), (-0.5,), StopReason.EOS)
    return [Sample(Problem(f"q_{i}", "?", 1.0), completion, "", ExecutionResult(Status.OK, 1.0)) for i in range(n)]


@pytest.mark.parametrize(
    "scores",
    [[0.5, 1], (0.5, True), np.array([0.5, 1], dtype=np.float32), torch.tensor([0.5, 1.0]), [torch.tensor(0.5), np.float64(1)]],
    ids=["list", "tuple", "numpy", "tensor", "scalars"],
)
def test_every_numeric_type_is_accepted(scores: Any) -> None:
    found = outcomes("Returns", scores, samples(2))
    assert found == [0.5, 1.0]
    assert {type(number) for number in found} == {float}


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (torch.tensor(float("nan")), r"tensor\(nan\)"),
        ("1.0", "'1.0'"),
        ([1.0], r"\[1.0\]"),
        (torch.tensor([1.0, 2.0]), "tensor"),
        (1j, "1j"),
        (1e39, r"1e\+39"),
        (10**400, "10000"),
    ],
)
def test_a_non_finite_reward_names_the_function_and_the_problem(score: Any, shown: str) -> None:
    with pytest.raises(
        UserError, match=f"the reward function Returns returned {shown}.* of the problem 'q_1': return a finite"
    ) as error:
        outcomes("Returns", [0.0, score, 0.0], samples(3))
    assert "\n" not in str(error.value)


def test_none_leaves_a_sample_out() -> None:
    assert outcomes("Returns", [None, 1, None], samples(3)) == [None, 1.0, None]


def test_every_sample_gets_a_reward() -> None:
    with pytest.raises(UserError, match="the reward function Returns returned 1 rewards for 2 samples"):
        outcomes("Returns", [0.0], samples(2))
    with pytest.raises(UserError, match="the reward function Returns returned None: return a list"):
        outcomes("Returns", None, samples(2))
    with pytest.raises(UserError, match=r"returned 1\.0: return a list"):
        outcomes("Returns", 1.0, samples(1))
    with pytest.raises(UserError, match=r"returned tensor\(1\.\): return a list"):
        outcomes("Returns", torch.tensor(1.0), samples(1))

"""Seeds and uniform numbers never change between versions, and are uniform."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reft_pl.rollout.seeds import counter_seed, uniforms_at


def uniforms(seed: int, n: int) -> NDArray[np.float64]:
    """The numbers of the first ``n`` tokens of a sample, [n]."""
    return uniforms_at([seed] * n, range(n))


def test_golden_seeds() -> None:
    assert counter_seed(0, "ppo", 0, "svamp_17", 0) == 6073621508599412328
    assert uniforms(0, 3).tolist() == [0.8833108082136426, 0.43152799704850997, 0.026433771592597743]


def test_splitmix64_reference_output() -> None:
    """Published first outputs of SplitMix64 from seed 1234567 (Rosetta Code), upper 53 bits."""
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert uniforms(1234567, 5).tolist() == [(x >> 11) * 2.0**-53 for x in outputs]


def test_every_part_of_the_name_counts() -> None:
    names = [
        (run, stage, epoch, item, index)
        for run in (0, 1) for stage in ("a", "b") for epoch in (0, 1) for item in ("1", "11", '1", 1') for index in (0, 1, 11)
    ]  # fmt: skip
    assert len({counter_seed(*name) for name in names}) == len(names)


def test_seeds_do_not_depend_on_the_process() -> None:
    code = "from reft_pl.rollout.seeds import counter_seed; print(counter_seed(3, 'eval', 2, 'é', 4))"
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert int(run.stdout) == counter_seed(3, "eval", 2, "é", 4)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_a_number_depends_only_on_seed_and_index(seed: int, index: int) -> None:
    alone = uniforms_at([seed], [index])[0]
    assert 0 <= alone < 1
    assert uniforms_at([5, seed, 7], [index, index, 0])[1] == alone
    assert uniforms(seed, index + 1)[index] == alone


def test_numbers_are_uniform_and_uncorrelated() -> None:
    table = np.stack([uniforms(counter_seed(0, "t", 0, str(i), 0), 500) for i in range(200)])
    counts = np.histogram(table, bins=100, range=(0, 1))[0]
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 60 < chi_square < 150  # 99 degrees of freedom
    assert abs(np.corrcoef(table[:, :-1].ravel(), table[:, 1:].ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]) < 0.015


def test_neighbouring_seeds_do_not_share_a_stream() -> None:
    assert not set(uniforms(1, 1000).tolist()) & set(uniforms(2, 1000).tolist())

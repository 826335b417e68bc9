"""Whitening: mean 0 and variance 1 over every action, on one process and on two."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from reft_pl.rl.statistics import whiten


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 7, generator=generator, dtype=torch.float64) * 3 + 1
    mask = torch.rand(5, 7, generator=generator) < 0.7
    return torch.where(mask, x, torch.nan), mask


def test_hand_computed() -> None:
    """1, 2, 3: mean 2, unbiased variance 1."""
    x, mask = torch.tensor([[1.0, 2.0], [torch.nan, 3.0]]), torch.tensor([[True, True], [False, True]])
    torch.testing.assert_close(whiten(x, mask), torch.tensor([[-1.0, 0.0], [0.0, 1.0]]), rtol=0, atol=1e-6)


def test_mean_zero_and_variance_one() -> None:
    x, mask = batch()
    whitened = whiten(x, mask)
    assert whitened[mask].mean().item() == pytest.approx(0, abs=1e-12)
    assert whitened[mask].var().item() == pytest.approx(1, abs=1e-6)
    assert (whitened[~mask] == 0).all()


def test_a_large_common_offset_does_not_cancel_the_variance() -> None:
    """In fp32, E[A^2] - E[A]^2 of values around 4096 with deviation 0.01 is noise; two passes are accurate."""
    mask = torch.ones(4, 64, dtype=torch.bool)
    x = 4096 + 0.01 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whiten(x, mask).var(), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_equal_advantages_and_single_actions_become_zero() -> None:
    assert whiten(torch.full((2, 2), 0.7), torch.ones(2, 2, dtype=torch.bool)).abs().max().item() < 1e-2
    single = torch.tensor([[False, True]])
    assert whiten(torch.tensor([[torch.nan, 5.0]]), single).tolist() == [[0, 0]]
    assert whiten(torch.tensor([[1.0, 5.0]]), torch.zeros_like(single)).tolist() == [[0, 0]]


def rank_main(rank: int, folder: Path, splits: list[int]) -> None:
    """Whiten this rank's part of the batch, and save the result in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    def all_reduce(x: Tensor) -> Tensor:
        dist.all_reduce(x)
        return x

    x, mask = (part.split(splits)[rank] for part in batch())
    torch.save(whiten(x, mask, all_reduce), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("splits", [[2, 3], [5, 0]])
def test_two_ranks_equal_one(tmp_path: Path, splits: list[int]) -> None:
    """Real gloo processes with parts of different sizes; one may have no actions."""
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path), *map(str, splits)]) for rank in range(2)]
    try:
        assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat(parts), whiten(*batch()), rtol=1e-12, atol=1e-12)


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), Path(sys.argv[2]), [int(size) for size in sys.argv[3:]])

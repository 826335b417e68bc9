from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from reft_pl.data.loader import ProblemLoader
from reft_pl.errors import UserError
from reft_pl.types import Problem


def problems(n: int) -> list[Problem]:
    return [Problem(str(i), f"q{i}", float(i)) for i in range(n)]


def ids(batches: list[list[Problem]]) -> list[list[str]]:
    return [[p.id for p in batch] for batch in batches]


@given(n=st.integers(1, 60), batch_size=st.integers(1, 20), world_size=st.integers(1, 4), shuffle=st.booleans())
def test_ranks_share_every_problem_equally(n, batch_size, world_size, shuffle):
    if batch_size < world_size:
        return
    ranks = [
        list(ProblemLoader(problems(n), batch_size, seed=3, shuffle=shuffle, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sorted(p.id for batches in ranks for batch in batches for p in batch) == sorted(map(str, range(n)))
    assert {len(batches) for batches in ranks} == {-(-n // batch_size)}
    for parts in zip(*ranks, strict=True):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) <= batch_size
    whole = ProblemLoader(problems(n), batch_size, seed=3, shuffle=shuffle).global_batches(0)
    assert max(map(len, whole)) - min(map(len, whole)) <= 1


def test_order_is_a_function_of_seed_and_epoch():
    loader, again = ProblemLoader(problems(50), 8, seed=1), ProblemLoader(problems(50), 8, seed=1)
    assert ids(list(loader)) == ids(list(again)) == ids(loader.global_batches(0))
    again.set_epoch(1)
    assert ids(list(again)) == ids(loader.global_batches(1)) != ids(loader.global_batches(0))
    assert ids(ProblemLoader(problems(50), 8, seed=2).global_batches(0)) != ids(loader.global_batches(0))


def test_evaluation_is_in_order():
    assert ids(list(ProblemLoader(problems(5), 2, shuffle=False))) == [["0"], ["1", "2"], ["3", "4"]]


@pytest.mark.parametrize("stop", range(7))
def test_state_continues_after_the_last_batch(stop):
    loader = ProblemLoader(problems(50), 8, seed=1)
    loader.set_epoch(4)
    iterator = iter(loader)
    for _ in range(stop):
        next(iterator)
    other = ProblemLoader(problems(50), 8, seed=1)
    other.load_state_dict(loader.state_dict())
    rest = iter(other)
    other.set_epoch(4)
    assert ids(list(rest)) == ids(loader.global_batches(4))[stop:]
    assert ids(list(other)) == ids(loader.global_batches(4))


def test_state_of_another_epoch_starts_at_the_beginning():
    loader = ProblemLoader(problems(50), 8, seed=1)
    loader.load_state_dict({**loader.state_dict(), "epoch": 2, "delivered": 3})
    loader.set_epoch(3)
    assert ids(list(loader)) == ids(loader.global_batches(3))


def test_mid_epoch_state_of_other_data_is_refused():
    loader = ProblemLoader(problems(50), 8, seed=1)
    next(iter(loader))
    other = ProblemLoader(problems(49), 8, seed=1)
    other.load_state_dict(loader.state_dict())
    with pytest.raises(UserError, match="from the middle of an epoch of other data"):
        next(iter(other))


def test_a_batch_cannot_be_smaller_than_the_world():
    with pytest.raises(UserError, match="cannot be shared by 4 ranks"):
        ProblemLoader(problems(9), 2, world_size=4)


class Recorder(LightningModule):
    """Takes one step per batch and records its problems."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.automatic_optimization = False
        self.seen: list[tuple[int, list[str]]] = []

    def training_step(self, batch: list[Problem], batch_idx: int) -> None:
        optimizer = self.optimizers()
        self.manual_backward(self.weight.sum() * float(batch[0].id))
        optimizer.step()
        optimizer.zero_grad()
        self.seen.append((self.current_epoch, [p.id for p in batch]))

    def validation_step(self, batch: list[Problem], batch_idx: int) -> None:
        assert isinstance(batch[0], Problem)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Data(LightningDataModule):
    def train_dataloader(self) -> ProblemLoader:
        return ProblemLoader(problems(22), 5, seed=7)

    def val_dataloader(self) -> ProblemLoader:
        return ProblemLoader(problems(4), 3, shuffle=False)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch


def run(folder, module, resume=None):
    checkpoint = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}", save_last=False)
    trainer = Trainer(
        default_root_dir=folder, max_epochs=3, accelerator="cpu", devices=1, logger=False, callbacks=[checkpoint],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_train_batches=4,
    )  # fmt: skip
    trainer.fit(module, datamodule=Data(), ckpt_path=resume)


pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's warnings about a run this small


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("whole"), Recorder()
    run(folder, module)
    return folder, module


def test_every_epoch_has_a_different_order(uninterrupted):
    _, module = uninterrupted
    expected = [(e, batch) for e in range(3) for batch in ids(Data().train_dataloader().global_batches(e))[:4]]
    assert module.seen == expected


@pytest.mark.parametrize("step", range(1, 12))
def test_a_trainer_resumed_at_any_batch_gets_the_remaining_problems(uninterrupted, tmp_path, step):
    folder, module = uninterrupted
    resumed = Recorder()
    run(tmp_path, resumed, resume=folder / f"step={step}.ckpt")
    assert resumed.seen == module.seen[step:]
    assert torch.equal(resumed.weight, module.weight)

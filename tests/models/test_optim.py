from __future__ import annotations

import copy
import io

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from reft_pl.models import optim
from reft_pl.models.optim import MasterAdamW

ARGUMENTS = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}


def make(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step)).to(next(module.parameters()).dtype)
        optimizer.zero_grad()
        module(x).float().square().mean().backward()
        optimizer.step()


def test_is_adamw_in_float32():
    ours, theirs = make(torch.float32), make(torch.float32)
    train(ours, MasterAdamW(ours.parameters(), **ARGUMENTS), range(20))
    train(theirs, torch.optim.AdamW(theirs.parameters(), **ARGUMENTS, fused=True), range(20))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_buckets_change_nothing(monkeypatch):
    whole, parts = make(torch.bfloat16), make(torch.bfloat16)
    train(whole, MasterAdamW(whole.parameters(), **ARGUMENTS), range(5))
    monkeypatch.setattr(optim, "bucket_elements", lambda device: 10)
    train(parts, MasterAdamW(parts.parameters(), **ARGUMENTS), range(5))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_master_weights_step_like_adamw_in_float32(dtype):
    module = make(dtype)
    masters = [p.detach().float().requires_grad_() for p in module.parameters()]
    ours, theirs = MasterAdamW(module.parameters(), **ARGUMENTS), torch.optim.AdamW(masters, **ARGUMENTS, fused=True)
    for step in range(10):
        train(module, ours, range(step, step + 1))
        for p, master in zip(module.parameters(), masters, strict=True):
            master.grad = p.grad.float()
        theirs.step()
        for p, master in zip(module.parameters(), masters, strict=True):
            assert torch.equal(ours.state[p]["master"], master)
            assert torch.equal(p, master.to(dtype))


def test_steps_too_small_for_bfloat16_add_up_in_the_masters():
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], lr=3e-6)
    for _ in range(10):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert torch.equal(weight, torch.ones_like(weight))
    torch.testing.assert_close(optimizer.state[weight]["master"], torch.full((4,), 1 - 3e-5), atol=1e-6, rtol=0)
    for _ in range(1300):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert bool((weight < 1).all())


def test_externally_changed_weights_are_the_new_starting_point():
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], lr=0.5)
    for value in (1.0, 8.0):  # like a strategy that loads weights without optimizer state
        with torch.no_grad():
            weight.fill_(value)
        optimizer.forget_masters()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert torch.equal(weight, torch.full_like(weight, value - 0.5))
    assert optimizer.state[weight]["step"] == 2, "the moving averages continue"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resumes_bitwise(dtype):
    whole = make(dtype)
    optimizer = MasterAdamW(whole.parameters(), **ARGUMENTS)
    train(whole, optimizer, range(7))
    file = io.BytesIO()
    torch.save({"weights": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(whole, optimizer, range(7, 15))

    file.seek(0)
    stored = torch.load(file, weights_only=True)
    resumed = make(dtype)
    again = MasterAdamW(resumed.parameters(), lr=99.0)
    resumed.load_state_dict(stored["weights"])
    again.load_state_dict(stored["optimizer"])
    assert again.param_groups[0]["lr"] == ARGUMENTS["lr"]
    train(resumed, again, range(7, 15))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
        for name, value in optimizer.state[a].items():
            assert torch.equal(value, again.state[b][name])
            assert value.dtype == torch.float32


def test_a_loaded_state_is_a_copy():
    module = make(torch.bfloat16)
    optimizer = MasterAdamW(module.parameters(), **ARGUMENTS)
    train(module, optimizer, range(2))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    other = make(torch.bfloat16)
    loaded = MasterAdamW(other.parameters(), **ARGUMENTS)
    loaded.load_state_dict(state)
    train(other, loaded, range(3))
    assert torch.equal(state["state"][0]["master"], before["state"][0]["master"])


def test_a_state_of_other_parameters_is_refused():
    module = make(torch.float32)
    optimizer = MasterAdamW(module.parameters())
    with pytest.raises(ValueError, match="parameter group"):
        MasterAdamW(list(module.parameters())[:2]).load_state_dict(optimizer.state_dict())


def test_schedulers_groups_closures_and_missing_gradients():
    moved, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    unused = nn.Parameter(torch.ones(3))
    optimizer = MasterAdamW([{"params": [moved, unused]}, {"params": [frozen], "lr": 0.0}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = moved.sum() + frozen.float().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 6.0
    torch.testing.assert_close(moved.detach(), torch.full((3,), 0.9))
    scheduler.step()
    optimizer.step(closure)
    torch.testing.assert_close(moved.detach(), torch.full((3,), 0.85))
    assert torch.equal(frozen, torch.ones_like(frozen))
    assert unused not in optimizer.state


def test_named_in_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--optimizer", type=OptimizerCallable)
    arguments = ["--optimizer=reft_pl.models.optim.MasterAdamW", "--optimizer.lr=3e-6"]
    optimizer = parser.instantiate_classes(parser.parse_args(arguments)).optimizer([nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, MasterAdamW)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (3e-6, 0.0)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": -1.0}, {"weight_decay": -0.1}])
def test_impossible_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="must not be negative"):
        MasterAdamW([nn.Parameter(torch.ones(1))], **wrong)

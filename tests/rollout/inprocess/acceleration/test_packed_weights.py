"""Layers with packed weights, compared with the same layers unpacked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reft_pl.rollout.inprocess.acceleration import packed_weights
from reft_pl.rollout.inprocess.acceleration.packed_weights import PackedLinear, PackedWeights
from reft_pl.types import SamplingParams
from tests.rollout.inprocess.sampling import build, requests, sample


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(384, 512), nn.Linear(512, 256, bias=False), nn.Linear(256, 4)).to(dtype)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 100])
@torch.no_grad()
def test_packed_layers_compute_the_same(rows):
    net = network()
    x = torch.randn(rows, 1, 384)
    expected = net(x)
    with PackedWeights(net, 8).used():
        assert [type(layer) for layer in net] == [PackedLinear, PackedLinear, nn.Linear]  # the last is too small
        found = net(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net(x), expected, atol=0, rtol=0)


@torch.no_grad()
def test_layers_use_the_packed_weights():
    net = network()
    packed = PackedWeights(net, 8)
    with packed.used():
        net(torch.randn(8, 384))
    net[0].weight.zero_()  # behind their back
    with packed.used():
        assert net[0](torch.randn(8, 384)).std(0).min() > 0.1
    assert net[0](torch.randn(8, 384)).std(0).max() == 0  # but the bias, the same in each row


@torch.no_grad()
def test_packed_weights_are_released_even_after_an_error():
    net = network()

    def interrupted():
        with PackedWeights(net, 8).used():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [type(layer) for layer in net] == [nn.Linear] * 3
    assert not packed_weights._in_use


@torch.no_grad()
def test_bfloat16_is_rounded_once():
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("no bfloat16 here")
    net = network(torch.bfloat16)
    x = torch.randn(9, 384).bfloat16()
    exact = nn.functional.linear(x.float(), net[0].weight.float(), net[0].bias.float())
    with PackedWeights(net, 8).used():
        found = net[0](x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=1e-3, rtol=2**-7)


def test_layers_that_onednn_does_not_support_stay():
    net = network(torch.float64)
    with PackedWeights(net, 8).used():
        assert [type(layer) for layer in net] == [nn.Linear] * 3


def test_new_weights_are_packed_again(monkeypatch):
    monkeypatch.setattr(packed_weights, "SMALLEST", 0)
    lm = build("llama_gqa")
    asked = requests(6, SamplingParams(20))
    sample(lm, asked, max_rows=4)
    with torch.no_grad():
        for weight in lm.parameters():
            weight.mul_(1.5)
    after = sample(lm, asked, max_rows=4)
    monkeypatch.setattr(packed_weights, "SMALLEST", 2**62)
    assert {key: c.token_ids for key, c in after.items()} == {
        key: c.token_ids for key, c in sample(lm, asked, max_rows=4).items()
    }

"""The digest detects changed weights, and does not depend on their layout in an engine."""

import pytest
import torch

from reft_pl.models.adapters import add_adapters
from reft_pl.models.settings import LoRASettings
from reft_pl.rollout.vllm.digest import CHUNK, weights_digest
from reft_pl.rollout.vllm.engine_sampler import PolicyWeights

from .conftest import build


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_fused_transposed_padded_and_sharded_weights_have_one_digest(dtype: torch.dtype) -> None:
    a, b = drawn(6, 8, dtype=dtype), drawn(4, 8, dtype=dtype).roll(1, 1)
    expected = weights_digest([a, b])
    padded = torch.cat([a, torch.zeros(2, 8, dtype=dtype), b])
    assert weights_digest([padded.t()]) == expected
    assert weights_digest([b[:, :3], a, b[:, 3:]]) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_bit_changes_it(dtype: torch.dtype) -> None:
    weight = drawn(5, 7, dtype=dtype)
    other = weight.clone()
    bits = other.view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
    bits[3, 2] ^= 1
    assert weights_digest([weight]) != weights_digest([other])
    bits[3, 2] ^= 1
    assert weights_digest([weight]) == weights_digest([other])


def test_changes_that_cancel_in_the_sum_do_not_in_the_squares() -> None:
    weight = torch.tensor([1.0, 2.0])
    other = weight.clone()
    other.view(torch.int32).add_(torch.tensor([1, -1], dtype=torch.int32))
    assert weights_digest([weight]) != weights_digest([other])


def test_both_zeros_have_one_digest() -> None:
    assert weights_digest([torch.tensor([0.0, 3.0])]) == weights_digest([torch.tensor([-0.0, 3.0])])


def test_all_chunks_count() -> None:
    weight = torch.ones(CHUNK + 3)
    assert weights_digest([weight]) == weights_digest([weight[:5], weight[5:]])
    weight[-1] = 2
    assert weights_digest([weight]) != weights_digest([torch.ones(CHUNK + 3)])


def test_a_policys_weights_are_its_parameters_once_each_with_adapters_merged() -> None:
    lm = build()
    plain = dict(PolicyWeights(lm))
    assert plain.keys() == dict(lm.named_parameters()).keys(), "the LM head is tied to the embeddings"
    add_adapters(lm, LoRASettings(r=2), seed=0)
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    merged = dict(PolicyWeights(lm))
    assert list(merged) == list(plain)
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert changed
    assert all("_proj" in name for name in changed)

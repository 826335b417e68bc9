"""The compiled attention of a decoding step against the one of matrix products."""

from __future__ import annotations

import pytest
import torch

from reft_pl.models import compilation
from reft_pl.rollout.attention import decode_attention
from reft_pl.rollout.native_attention import has_native_attention, native_attention

pytestmark = pytest.mark.skipif(compilation._lacking() is not None, reason="nothing compiles C++ here")


def step(rows, heads, kv_heads, width, room, dtype):
    """Query, keys, values, and a mask that ends each row where it will; what has not been written is finite, but large."""
    generator = torch.Generator().manual_seed(rows + room)
    query = torch.randn(rows, heads, 1, width, generator=generator)
    key = torch.randn(rows, kv_heads, room, width, generator=generator)
    value = torch.randn(rows, kv_heads, room, width, generator=generator)
    lengths = torch.randint(1, room + 1, (rows,), generator=generator)
    later = torch.arange(room)[None] >= lengths[:, None]
    value.masked_fill_(later[:, None, :, None], 1e6)
    mask = torch.zeros(rows, room).masked_fill(later, float("-inf"))[:, None, None]
    return tuple(tensor.to(dtype) for tensor in (query, key, value, mask))


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(9, 3, 64), (4, 4, 16), (14, 2, 128)])
@pytest.mark.parametrize(("rows", "room"), [(1, 1), (3, 15), (5, 16), (7, 100), (64, 192)])
def test_it_is_what_matrix_products_give(heads, kv_heads, width, rows, room):
    query, key, value, mask = step(rows, heads, kv_heads, width, room, torch.float32)
    exact = decode_attention(query.double(), key.double(), value.double(), 0.3, mask.double())
    # scores reach 15 here: float32 has them to 1e-6, and so the weights to 1e-5 of themselves
    torch.testing.assert_close(native_attention(query, key, value, 0.3, mask).double(), exact, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_rounded_once():
    query, key, value, mask = step(7, 9, 3, 64, 100, torch.bfloat16)
    exact = decode_attention(query.float(), key.float(), value.float(), 0.125, mask.float())
    found = native_attention(query, key, value, 0.125, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=1e-3, rtol=2**-8)


def test_large_and_small_scores_keep_their_weights():
    query, key, value, mask = step(5, 4, 4, 16, 40, torch.float32)
    for scaling in (1e-4, 30.0):
        expected = decode_attention(query, key, value, scaling, mask)
        torch.testing.assert_close(native_attention(query, key, value, scaling, mask), expected, atol=1e-5, rtol=1e-4)


def test_a_mask_of_other_numbers_is_added():
    query, key, value, mask = step(5, 4, 4, 16, 40, torch.float32)
    mask = mask + torch.linspace(-3, 0, 40)
    mask[:, :, :, 0] = float("-inf")
    mask[:, :, :, 1] = 0.5
    expected = decode_attention(query, key, value, 0.3, mask)
    torch.testing.assert_close(native_attention(query, key, value, 0.3, mask), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(dtype):
    query, key, value, mask = step(5, 9, 3, 64, 40, dtype)
    query[2, 4] = float("nan")
    found = native_attention(query, key, value, 0.3, mask).isnan()
    assert found[2, 0, 4].all()
    assert not found[[0, 1, 3, 4]].any()


def test_odd_heads_and_formats_have_none():
    states = step(2, 4, 4, 32, 8, torch.float32)[:3]
    query, key, value = states
    assert has_native_attention(query, key, value)
    assert not has_native_attention(query, key, value[..., :16])
    assert not has_native_attention(*(tensor[..., :10] for tensor in states))
    assert not has_native_attention(*(tensor.half() for tensor in states))
    assert not has_native_attention(*(tensor.to("meta") for tensor in states))

"""Native attention of a decoding step, compared with matrix products."""

from __future__ import annotations

import pytest
import torch

from reft_pl.models import compilation
from reft_pl.models.packing import Packing
from reft_pl.rollout.inprocess.acceleration.native_attention import has_native_attention, native_attention
from reft_pl.rollout.inprocess.attention import decode_attention

pytestmark = pytest.mark.skipif(compilation.what_compilation_lacks() is not None, reason="nothing compiles C++ here")


def step(rows, heads, kv_heads, width, room, dtype, most=1):
    """Build query, keys, values and packing of up to ``most`` tokens per row; unused cache is finite but large."""
    generator = torch.Generator().manual_seed(rows + room)
    lengths = torch.randint(1, min(most, room) + 1, (rows,), generator=generator)
    starts = (torch.rand(rows, generator=generator) * (room - lengths + 1)).long()
    query = torch.randn(1, heads, int(lengths.sum()), width, generator=generator)
    key = torch.randn(rows + 1, kv_heads, room, width, generator=generator)  # one slot is free
    value = torch.randn(rows + 1, kv_heads, room, width, generator=generator)
    for row, end in enumerate(starts + lengths):
        value[row, :, end:] = 1e6
    packing = Packing.of(lengths.tolist(), torch.device("cpu"), starts.tolist())
    return *(tensor.to(dtype) for tensor in (query, key, value)), packing


def native(query, key, value, scaling, packing):
    return native_attention(query, key, value, scaling, packing.rows, packing.positions)


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(9, 3, 64), (4, 4, 16), (14, 2, 128)])
@pytest.mark.parametrize(("rows", "room", "most"), [(1, 1, 1), (3, 15, 1), (5, 16, 4), (7, 100, 9), (64, 192, 3)])
def test_native_attention_equals_matrix_products(heads, kv_heads, width, rows, room, most):
    query, key, value, packing = step(rows, heads, kv_heads, width, room, torch.float32, most)
    exact = decode_attention(query.double(), key.double(), value.double(), 0.3, packing)
    # scores reach 15 here: float32 has them to 1e-6, and so the weights to 1e-5 of themselves
    found = native(query, key, value, 0.3, packing)
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("most", [1, 5])
def test_matrix_products_equal_attention_per_token(most):
    query, key, value, packing = step(6, 4, 2, 16, 30, torch.float64, most)
    found = decode_attention(query, key, value, 0.3, packing)
    for token, (row, position) in enumerate(zip(packing.rows.tolist(), packing.positions.tolist(), strict=True)):
        seen = slice(0, position + 1)
        for head in range(4):
            scores = key[row, head // 2, seen] @ query[0, head, token] * 0.3
            expected = scores.softmax(0) @ value[row, head // 2, seen]
            torch.testing.assert_close(found[0, token, head], expected)


def test_values_can_be_narrower_than_keys():
    query, key, value, packing = step(6, 6, 3, 24, 30, torch.float64, 5)
    narrow = decode_attention(query, key, value[..., :16], 0.3, packing)
    torch.testing.assert_close(narrow, decode_attention(query, key, value, 0.3, packing)[..., :16])


def test_bfloat16_is_rounded_once():
    query, key, value, packing = step(7, 9, 3, 64, 100, torch.bfloat16, 3)
    exact = decode_attention(query.float(), key.float(), value.float(), 0.125, packing)
    found = native(query, key, value, 0.125, packing)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=1e-3, rtol=2**-8)


def test_large_and_small_scores_keep_their_weights():
    query, key, value, packing = step(5, 4, 4, 16, 40, torch.float32)
    for scaling in (1e-4, 30.0):
        expected = decode_attention(query, key, value, scaling, packing)
        torch.testing.assert_close(native(query, key, value, scaling, packing), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_stays_nan(dtype):
    query, key, value, packing = step(5, 9, 3, 64, 40, dtype)
    query[0, 4, 2] = float("nan")
    found = native(query, key, value, 0.3, packing).isnan()
    assert found[0, 2, 4].all()
    assert not found[0, [0, 1, 3, 4]].any()


def test_unsupported_heads_and_dtypes_have_no_kernel():
    states = step(2, 4, 4, 32, 8, torch.float32)[:3]
    query, key, value = states
    assert has_native_attention(query, key, value)
    assert not has_native_attention(query, key, value[..., :16])
    assert not has_native_attention(*(tensor[..., :10] for tensor in states))
    assert not has_native_attention(*(tensor.half() for tensor in states))
    assert not has_native_attention(*(tensor.to("meta") for tensor in states))

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.data.batching import collate


def test_collate_by_hand():
    batch = collate([[5, 6, 7, 2], [8, 9]], [2, 1], pad_id=2)
    assert batch.input_ids.tolist() == [[5, 6, 7, 2], [8, 9, 2, 2]]
    assert batch.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    # Position t chooses token t + 1: the first row's actions are tokens 2 and 3, its EOS among them.
    assert batch.action_mask.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert batch.input_ids.dtype == torch.int64


@given(
    rows=st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 12)), min_size=1, max_size=8),
    pad=st.integers(0, 9),
)
def test_masks_depend_on_lengths_and_not_on_the_padding_id(rows, pad):
    sequences = [ids for ids, _ in rows]
    prompts = [min(n, len(ids)) for ids, n in rows]
    batch = collate(sequences, prompts, pad)
    assert batch.attention_mask.sum(1).tolist() == [len(s) for s in sequences]
    assert batch.action_mask.sum(1).tolist() == [len(s) - n for s, n in zip(sequences, prompts, strict=True)]
    for row, ids in enumerate(sequences):
        assert batch.input_ids[row, : len(ids)].tolist() == ids


@pytest.mark.parametrize(("sequences", "prompts"), [([[1]], [0]), ([[1]], [2]), ([[1], [2]], [1])])
def test_collate_refuses_an_empty_prompt(sequences, prompts):
    with pytest.raises(ValueError, match="prompt"):
        collate(sequences, prompts, 0)


def test_a_rank_without_sequences_has_an_empty_batch():
    batch = collate([], [], 0)
    assert batch.input_ids.shape == batch.action_mask.shape == (0, 0)
    assert batch.input_ids.dtype == torch.int64

"""Rows that share a prompt give the same scores and gradients as rows that repeat it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import MistralConfig, PreTrainedModel

from reft_pl.models.adapters import add_adapters
from reft_pl.models.compilation import compile_layers
from reft_pl.models.loading import load_policy
from reft_pl.models.micro_batches import micro_batches, split, split_shared, take
from reft_pl.models.packed_architectures import shares_prompts
from reft_pl.models.policy import BasePolicy, Policy, ValueKind
from reft_pl.models.scoring import score, score_in_batches
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.models.shared_prompts import SharedPrompts, prompt_groups
from reft_pl.types import Scores, TokenBatch
from tests.models.conftest import SPECIAL, VOCABULARY, tiny
from tests.random_models import random_model

GROUPS = {5: (7, 1, 4), 3: (2,), 8: (6, 6)}
"""Lengths of the responses to each prompt, by the prompt's length."""


def grouped(groups: dict[int, tuple[int, ...]] = GROUPS, side: str = "right", seed: int = 0) -> TokenBatch:
    """Build rows of random tokens; the rows of a group repeat its prompt. Groups are interleaved."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for length, responses in groups.items():
        prompt = torch.randint(3, VOCABULARY, (length,), generator=generator)
        rows += [
            (i, length, torch.cat([prompt, torch.randint(3, VOCABULARY, (n,), generator=generator)]))
            for i, n in enumerate(responses)
        ]
    rows.sort(key=lambda row: row[0])
    width = max(len(ids) for *_, ids in rows) + 2
    batch = TokenBatch(*(torch.zeros(len(rows), width, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool)))
    for place, (_, prompt_length, ids) in enumerate(rows):
        start = {"right": 0, "left": width - len(ids), "mixed": place % 3}[side] if len(ids) + 2 <= width else 0
        batch.input_ids[place, start : start + len(ids)] = ids
        batch.attention_mask[place, start : start + len(ids)] = True
        batch.action_mask[place, start + prompt_length - 1 : start + len(ids) - 1] = True
    return batch


def with_value(lm: PreTrainedModel, kind: ValueKind = "shared", *, checkpointing: bool = False) -> Policy:
    policy = Policy(copy.deepcopy(lm), kind, checkpointing).eval()
    assert policy.value_head is not None
    torch.manual_seed(1)
    nn.init.normal_(policy.value_head.weight)
    return policy


def passed(policy: Policy, batch: TokenBatch, *, shared: bool) -> tuple[Scores, Tensor]:
    """Return scores and the gradient of a loss of all of them."""
    assert policy.shares_prompts
    policy.shares_prompts = shared
    scores = score(policy, batch, temperature=0.8)
    policy.shares_prompts = True
    loss = scores.logprobs.sum() + 0.1 * scores.entropy.sum()
    if scores.values is not None:
        loss = loss + scores.values.square().sum()
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    policy.zero_grad()
    return scores, gradient


def assert_same(found: tuple[Scores, Tensor], expected: tuple[Scores, Tensor]) -> None:
    for name in ("logprobs", "entropy", "values"):
        ours, theirs = (getattr(scores, name) for scores in (found[0], expected[0]))
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert float((found[1] - expected[1]).norm() / expected[1].norm()) < 1e-5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["right", "left", "mixed"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_scores_and_gradients_are_those_of_rows(lm: PreTrainedModel, side: str, checkpointing: bool, attention: str) -> None:
    lm.set_attn_implementation(attention)
    policy, batch = with_value(lm, checkpointing=checkpointing), grouped(side=side)
    assert_same(passed(policy, batch, shared=True), passed(policy, batch, shared=False))


def test_a_separate_value_model_shares_prompts_too(llama: PreTrainedModel) -> None:
    policy, batch = with_value(llama, "separate"), grouped()
    nn.init.normal_(policy.value_trunk.embed_tokens.weight)  # another trunk than the policy's
    assert_same(passed(policy, batch, shared=True), passed(policy, batch, shared=False))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [1, 3, 6, 100])
def test_sliding_windows_count_from_the_prompt(window: int, attention: str) -> None:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    lm = random_model(MistralConfig(**SPECIAL, **sizes, sliding_window=window))
    lm.set_attn_implementation(attention)
    policy, batch = with_value(lm), grouped()
    assert_same(passed(policy, batch, shared=True), passed(policy, batch, shared=False))


def test_adapters_and_their_base_share_prompts(llama: PreTrainedModel) -> None:
    add_adapters(llama, LoRASettings(r=4), seed=0)
    for name, parameter in llama.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    policy, batch = Policy(llama).eval(), grouped()
    expected = passed(policy, batch, shared=False)
    assert_same(passed(policy, batch, shared=True), expected)
    base = BasePolicy(policy)
    with torch.no_grad():
        ours = score(base, batch).logprobs
        base.shares_prompts = False
        theirs = score(base, batch).logprobs
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, expected[0].logprobs)


@pytest.mark.slow  # a C++ compiler takes some ten seconds a graph
@pytest.mark.usefixtures("compiler_from_nothing")
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_compiled_layers_share_prompts(name: str) -> None:
    plain, compiled = (with_value(tiny(name)) for _ in range(2))
    compile_layers(compiled)
    batch = grouped()
    alone = take(batch, torch.tensor([0]))
    for given_batch in (batch, alone, grouped({4: (3, 3, 3), 6: (9,)}, seed=1), batch):
        shared = given_batch is not alone
        assert_same(passed(compiled, given_batch, shared=shared), passed(plain, given_batch, shared=False))
    with torch.no_grad():
        before = score(compiled, batch).logprobs
    assert torch.equal(before, score(compiled, batch).logprobs), "the ratio before an update is 1"


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({}, True),
        ({"compile": True}, True),
        ({"gradient_checkpointing": True}, True),
        ({"compile": True, "gradient_checkpointing": True}, False),
    ],
)
def test_a_compiled_layer_that_is_recomputed_repeats_the_prompt(
    settings: dict[str, bool], shared: bool, micro_model: Path
) -> None:
    model = PolicySettings(str(micro_model), from_scratch=True, dtype="float32", **settings)
    assert load_policy(model).shares_prompts is shared


def test_after_rows_the_models_own_attention_is_back(llama: PreTrainedModel) -> None:
    policy, batch = with_value(llama), grouped()
    alone = take(batch, torch.tensor([0]))
    own, before = llama.config._attn_implementation, score(policy, alone)
    score(policy, batch)
    assert policy.lm.config._attn_implementation == policy.shared_attention
    after = score(policy, alone)
    assert torch.equal(before.logprobs, after.logprobs)
    assert policy.lm.config._attn_implementation == own


def test_rows_without_a_common_prompt_are_left_alone(llama: PreTrainedModel) -> None:
    assert SharedPrompts.of(grouped({4: (3,), 6: (2,)})) is None
    assert SharedPrompts.of(grouped()) is not None


def test_a_prompt_is_computed_once_and_positions_continue_after_it() -> None:
    layout = SharedPrompts.of(grouped())
    assert layout is not None
    positions = layout.position_ids[0].tolist()
    assert positions[: 5 + 3 + 8] == [*range(5), *range(3), *range(8)]
    assert positions[5 + 3 + 8 :] == [
        p for prompt, lengths in GROUPS.items() for n in lengths for p in range(prompt, prompt + n)
    ]
    assert layout.input_ids.shape == layout.position_ids.shape


def test_an_empty_batch_has_no_groups() -> None:
    assert prompt_groups(take(grouped(), torch.zeros(0, dtype=torch.int64))) == []


def test_rows_without_actions_cost_nothing_and_score_0(llama: PreTrainedModel) -> None:
    policy, batch = with_value(llama), grouped()
    expected = score(policy, batch).logprobs
    batch.action_mask[1] = False
    scores = score(policy, batch)
    assert not scores.logprobs[1].any()
    others = torch.arange(len(expected)) != 1
    torch.testing.assert_close(scores.logprobs[others], expected[others], atol=1e-5, rtol=1e-5)
    assert 1 not in [row for group in prompt_groups(batch) for row in group]


@settings(max_examples=40, deadline=None)
@given(
    groups=st.dictionaries(
        st.integers(1, 9), st.lists(st.integers(1, 8), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5
    ),
    side=st.sampled_from(["right", "left", "mixed"]),
    limit=st.integers(1, 60),
)
def test_any_groups_in_any_micro_batches(groups: dict[int, tuple[int, ...]], side: str, limit: int) -> None:
    policy, batch = with_value(tiny("llama")), grouped(groups, side)
    parts = split_shared(batch, limit, prompt_groups(batch))
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(batch.input_ids)))
    for part in parts:
        micro = take(batch, part)
        lengths = [
            (len(prompt), int(micro.attention_mask[rows].sum()) - len(rows) * len(prompt)) for prompt, rows in named(micro)
        ]
        assert len(part) == 1 or sum(map(sum, lengths)) <= limit
    policy.shares_prompts = False
    expected = score(policy, batch)
    policy.shares_prompts = True
    found = score_in_batches(policy, batch, limit)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-4)


def named(batch: TokenBatch) -> list[tuple[list[int], list[int]]]:
    """Return each group's prompt with its rows."""
    found = []
    for rows in prompt_groups(batch):
        start, first = int(batch.attention_mask[rows[0]].int().argmax()), int(batch.action_mask[rows[0]].int().argmax())
        found.append((batch.input_ids[rows[0], start : first + 1].tolist(), rows))
    return found


@pytest.mark.parametrize(("batch", "shared"), [(grouped({4: (3,), 6: (2,)}), True), (grouped(), False)])
def test_without_sharing_rows_are_split_by_length(batch: TokenBatch, shared: bool) -> None:
    found, expected = micro_batches(batch, 30, shared=shared), split(batch, 30)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_architectures_with_their_own_attention_or_rotary_factors_repeat_the_prompt(llama: PreTrainedModel) -> None:
    assert shares_prompts(llama)
    llama.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not shares_prompts(llama)

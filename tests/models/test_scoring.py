from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reft_pl.models import scoring
from reft_pl.models.micro_batches import split, take
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score, score_in_batches, token_logprobs
from reft_pl.rl import categorical
from reft_pl.types import Scores, TokenBatch


def with_value(lm, kind="shared", **arguments):
    policy = Policy(lm, kind, **arguments).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(policy.value_head.weight)
    return policy


def loss_of(scores: Scores) -> Tensor:
    return scores.logprobs.sum() + scores.values.square().sum() + 0.1 * scores.entropy.sum()


def gradient(policy: Policy) -> Tensor:
    flat = torch.cat([p.grad.flatten().clone() for p in policy.parameters() if p.grad is not None])
    policy.zero_grad()
    return flat


def assert_same_gradient(actual: Tensor, expected: Tensor) -> None:
    """Assert equality to 1e-5 of the largest entry, and to 1e-5 of the vector norm."""
    torch.testing.assert_close(actual, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert float((actual - expected).norm() / expected.norm()) < 1e-5


def at_actions(batch: TokenBatch, scores: Scores) -> Tensor:
    return torch.stack([tensor[batch.action_mask] for tensor in (scores.logprobs, scores.entropy, scores.values)])


def test_equals_log_softmax_of_the_full_logits(lm, batches):
    policy, batch = Policy(lm), batches("right")
    logp = torch.log_softmax(lm(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits / 0.7, -1)
    expected = logp.gather(-1, batch.input_ids.roll(-1, 1).unsqueeze(-1)).squeeze(-1)
    entropy = torch.distributions.Categorical(logits=logp).entropy()
    scores = score(policy, batch, temperature=0.7)
    torch.testing.assert_close(scores.logprobs, torch.where(batch.action_mask, expected, 0.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy, torch.where(batch.action_mask, entropy, 0.0), atol=1e-5, rtol=1e-5)
    assert scores.values is None
    assert scores.logprobs.dtype == torch.float32


def test_independent_of_the_side_of_the_padding(lm, batches):
    policy = with_value(lm)
    results = {}
    for side in ("right", "left", "mixed"):
        batch = batches(side)
        scores = score(policy, batch)
        loss_of(scores).backward()
        results[side] = (at_actions(batch, scores), loss_of(scores), gradient(policy))
    for side in ("left", "mixed"):
        torch.testing.assert_close(results[side][:2], results["right"][:2], atol=1e-5, rtol=1e-5)
        assert_same_gradient(results[side][2], results["right"][2])


def test_unpadded_single_rows_give_the_same_scores(lm, batches):
    policy, batch = with_value(lm), batches("left")
    whole = score(policy, batch)
    loss_of(whole).backward()
    expected = gradient(policy)
    for b in range(len(batch.input_ids)):
        alone = take(batch, torch.tensor([b]))
        assert bool(alone.attention_mask.all())
        scores = score(policy, alone)
        loss_of(scores).backward()
        torch.testing.assert_close(
            scores.logprobs[alone.action_mask], whole.logprobs[b][batch.action_mask[b]], atol=1e-5, rtol=1e-5
        )
    assert_same_gradient(gradient(policy), expected)


@pytest.mark.parametrize("max_tokens", [1, 17, 24, 1000])
def test_independent_of_the_micro_batch_split(lm, batches, max_tokens):
    policy, batch = with_value(lm), batches("right")
    loss_of(score(policy, batch)).backward()
    expected = gradient(policy)
    for rows in split(batch, max_tokens):
        loss_of(score(policy, take(batch, rows))).backward()
    assert_same_gradient(gradient(policy), expected)


@pytest.mark.parametrize("side", ["left", "right", "mixed"])
def test_batched_results_keep_the_order_of_rows(llama, batches, side):
    policy, batch = with_value(llama), batches(side)
    whole, parts = score(policy, batch), score_in_batches(policy, batch, max_tokens=16)
    for name in ("logprobs", "entropy", "values"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name).detach(), atol=1e-5, rtol=1e-5)
    assert not parts.logprobs.requires_grad
    assert whole.logprobs.requires_grad


def test_chunks_of_the_vocabulary_head_change_nothing(lm, batches, monkeypatch):
    policy, batch = with_value(lm), batches("right")
    whole = score(policy, batch, temperature=1.3)
    loss_of(whole).backward()
    expected = gradient(policy)
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", 3 * policy.vocab_size)
    monkeypatch.setattr(categorical, "BLOCK_LOGITS_CPU", 2 * policy.vocab_size)
    parts = score(policy, batch, temperature=1.3)
    loss_of(parts).backward()
    torch.testing.assert_close(parts.logprobs, whole.logprobs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(parts.entropy, whole.entropy, atol=1e-6, rtol=1e-6)
    assert_same_gradient(gradient(policy), expected)


def test_never_holds_more_logits_than_a_chunk(llama, batches, monkeypatch):
    policy, batch = Policy(llama), batches("right")
    seen = []
    llama.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.numel() // policy.vocab_size))
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", 4 * policy.vocab_size)
    score(policy, batch)
    assert max(seen) == 4
    assert sum(seen) == int(batch.action_mask.sum())


def test_logprob_and_entropy_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [1.0, 1.0, 1.0]]))
    logprobs, entropy = token_logprobs(lambda h: h, logits, torch.tensor([1, 2]), chunk_rows=1)
    torch.testing.assert_close(logprobs, torch.log(torch.tensor([0.25, 1 / 3])))
    torch.testing.assert_close(entropy, torch.tensor([1.5 * 0.6931472, 1.0986123]))


def test_large_logits_stay_finite():
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    logprobs, entropy = token_logprobs(lambda h: h, logits, torch.tensor([0]), chunk_rows=8)
    (logprobs + entropy).sum().backward()
    assert logprobs.item() == pytest.approx(0.0)
    assert entropy.item() == pytest.approx(0.0)
    assert bool(logits.grad.isfinite().all())


def test_batch_without_actions_scores_zero_and_has_zero_gradient(llama, batches):
    policy, batch = with_value(llama), batches("right")
    empty = TokenBatch(batch.input_ids, batch.attention_mask, torch.zeros_like(batch.action_mask))
    scores = score(policy, empty)
    loss_of(scores).backward()
    assert not bool(scores.logprobs.any())
    assert float(gradient(policy).abs().sum()) == 0


@pytest.mark.parametrize("side", ["left", "right", "mixed"])
def test_tokens_at_padding_reach_neither_scores_nor_gradients(lm, batches, side):
    policy, batch = with_value(lm), batches(side)
    scores = score(policy, batch)
    loss_of(scores).backward()
    expected = gradient(policy)
    ids = torch.where(batch.attention_mask, batch.input_ids, 100)
    other = score(policy, TokenBatch(ids, batch.attention_mask, batch.action_mask))
    loss_of(other).backward()
    assert torch.equal(at_actions(batch, other), at_actions(batch, scores))
    assert_same_gradient(gradient(policy), expected)


@pytest.mark.parametrize("where", [(3, 2), (0, 13)])
def test_an_action_without_a_next_token_is_refused(llama, batches, where):
    batch = batches("right")
    action = batch.action_mask.clone()
    action[where] = True
    with pytest.raises(ValueError, match="no real token follows"):
        score(Policy(llama), TokenBatch(batch.input_ids, batch.attention_mask, action))


def test_greedy_has_no_distribution_to_score_with(llama, batches):
    with pytest.raises(ValueError, match="temperature"):
        score(Policy(llama), batches("right"), temperature=0.0)


def test_bfloat16_is_finite_near_float32_and_scored_in_float32(lm, batches):
    batch = batches("left")
    expected = score(Policy(lm), batch).logprobs.detach()
    for parameter in lm.parameters():
        parameter.data = parameter.data.bfloat16()
    policy = with_value(lm)
    scores = score(policy, batch)
    loss_of(scores).backward()
    assert scores.logprobs.dtype == scores.values.dtype == torch.float32
    assert policy.value_head.weight.dtype == torch.float32
    assert bool(gradient(policy).isfinite().all())
    assert float((scores.logprobs.detach() - expected).abs().max()) < 0.2


def test_separate_value_trunk_keeps_value_gradients_out_of_the_policy(llama, batches):
    policy, batch = with_value(llama, "separate"), batches("right")
    score(policy, batch).values.sum().backward()
    assert all(p.grad is None for p in policy.lm.parameters())
    assert any(float(p.grad.abs().sum()) > 0 for p in policy.value_trunk.parameters())


def test_values_start_at_zero(llama, batches):
    for kind in ("shared", "separate"):
        assert not bool(score(Policy(llama, kind), batches("left")).values.any())


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_gradient_checkpointing_recomputes_in_eval_mode_and_changes_nothing(lm, batches, kind):
    plain, batch = with_value(copy.deepcopy(lm), kind), batches("left")
    loss_of(score(plain, batch)).backward()
    calls = []
    checkpointed = copy.deepcopy(with_value(lm, kind, gradient_checkpointing=True))  # the copy checkpoints its own layers
    for name, module in checkpointed.lm.base_model.named_modules():
        if name.endswith("layers.0") or name.endswith("h.0"):
            module.register_forward_hook(lambda *_: calls.append("layer"))
            next(module.children()).register_forward_hook(lambda *_: calls.append("inside"))
    loss_of(score(checkpointed, batch)).backward()
    assert calls.count("inside") == 2 * calls.count("layer") > 0
    assert_same_gradient(gradient(checkpointed), gradient(plain))


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def of_lengths(row_lengths: list[int]) -> TokenBatch:
    real = torch.arange(10)[None, :] >= 10 - torch.tensor(row_lengths)[:, None]
    return TokenBatch(torch.arange(real.numel()).view_as(real), real, real.roll(-1, 1) & real)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 40))
def test_split_is_a_partition_within_the_budget_longest_first(row_lengths, max_tokens):
    groups = split(of_lengths(row_lengths), max_tokens)
    assert sorted(int(row) for group in groups for row in group) == list(range(len(row_lengths)))
    longest = [max(row_lengths[int(row)] for row in group) for group in groups]
    assert longest == sorted(longest, reverse=True)
    assert all(len(group) == 1 or len(group) * top <= max_tokens for group, top in zip(groups, longest, strict=True))


@settings(max_examples=100, deadline=None)
@given(lengths)
def test_take_keeps_every_real_token_and_trims_padding(row_lengths):
    batch = of_lengths(row_lengths)
    rows = torch.arange(len(row_lengths)).flip(0)
    taken = take(batch, rows)
    assert taken.input_ids.shape[1] == max(row_lengths)
    for k, b in enumerate(rows):
        assert torch.equal(taken.input_ids[k][taken.attention_mask[k]], batch.input_ids[b][batch.attention_mask[b]])
        assert bool(taken.attention_mask[k, : row_lengths[b]].all())


def test_split_refuses_an_empty_budget():
    with pytest.raises(ValueError, match="max_tokens"):
        split(of_lengths([3]), 0)


def test_values_of_a_policy_without_a_value_head_are_refused(llama):
    with pytest.raises(ValueError, match="no value head"):
        Policy(llama).state_values(torch.zeros(1, 32))

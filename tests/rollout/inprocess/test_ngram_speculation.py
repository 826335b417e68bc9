"""Drafts of an n-gram model, and samples that do not depend on them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.errors import UserError
from reft_pl.models.packing import current_packing
from reft_pl.models.policy import Policy
from reft_pl.rollout.inprocess import ngram_speculation as drafts
from reft_pl.rollout.inprocess.ngram_speculation import NgramDrafts
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import SampleRequest, SamplingParams
from tests.rollout.inprocess.sampling import EOS, build, requests, sample


def test_frequent_continuations_are_drafted_while_probable():
    model = NgramDrafts()
    assert model.guess([1, 2, 3], 8, ()) == []
    for _ in range(9):
        model.learn([1, 2, 3, 4, 5, 6])
    # each token came nine times out of nine after its context: 0.9 each, and 0.9^6 = 0.53 is the last above a half
    assert model.guess([7, 1], 8, ()) == [2, 3, 4, 5, 6]
    assert model.guess([7, 1], 2, ()) == [2, 3]
    assert model.guess([7, 1], 8, eos_ids=(4,)) == [2, 3]
    assert model.guess([7], 8, ()) == []


def test_the_longest_known_context_decides():
    model = NgramDrafts()
    for _ in range(20):
        model.learn([5, 1, 2, 3])
        model.learn([6, 1, 2, 4])
    assert model.guess([0, 5, 1], 1, ()) == [2]
    assert model.guess([5, 1, 2], 1, ()) == [3]
    assert model.guess([6, 1, 2], 1, ()) == [4]
    assert model.guess([9, 1, 2], 1, ()) == []  # each came half the time, which is less than a half of one more


def test_only_new_tokens_are_learned():
    model = NgramDrafts()
    model.learn([1, 2])
    for _ in range(5):
        model.learn([1, 2, 3], start=2)
    assert model.guess([1], 1, ()) == [2]  # once, of two: just probable enough
    model.learn([1, 9])
    assert model.guess([8, 1], 1, ()) == []


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(drafts, "MOST_COUNTS", 5)
    model = NgramDrafts()
    model.learn(range(100))
    assert len(model._counts) == len(model._followers) == 5
    for _ in range(9):
        model.learn([0, 1])
    assert model.guess([0], 1, ()) == [1]  # kept counts are still updated
    for _ in range(20):
        model.learn([0, 7])
    assert model.guess([0], 1, ()) == []  # and is no longer probable
    assert len(model._counts) == 5


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 9))
def test_counts_are_those_of_the_text(text, most):
    model = NgramDrafts()
    for end in range(1, len(text) + 1):  # one token at a time, as in sampling
        model.learn(text[:end], end - 1)
    guess = model.guess(text, most, ())
    assert len(guess) <= most
    if guess:
        for length in range(drafts.ORDER, 0, -1):
            after = [text[i + length] for i in range(len(text) - length) if text[i : i + length] == text[-length:]]
            if len(text) >= length and after:
                break
        assert after.count(guess[0]) == max(map(after.count, after)) >= drafts.CONFIDENCE * (len(after) + 1)


class Steps:
    """Record the tokens of every decoding step of a model."""

    def __init__(self, lm):
        self.tokens = []
        self._handle = lm.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        if current_packing().decoding:
            self.tokens.append(kwargs["input_ids"].shape[1])


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2", "opt", "codegen"])
@pytest.mark.parametrize("params", [SamplingParams(50, 0.0), SamplingParams(50, temperature=0.4, top_k=4, record_values=True)])
def test_drafts_save_steps_and_change_nothing(name, params):
    lm = build(name)
    policy = Policy(lm, "shared")
    torch.nn.init.normal_(policy.value_head.weight)
    asked = requests(12, params, samples=3)
    counted = Steps(lm)
    one_by_one = sample(policy, asked, max_rows=9, draft_tokens=0)
    steps = len(counted.tokens)
    counted.tokens.clear()
    guessed = sample(policy, asked, max_rows=9)
    assert len(counted.tokens) < steps
    assert max(counted.tokens) <= 18
    for key, completion in guessed.items():
        expected = one_by_one[key]
        assert (completion.token_ids, completion.stop) == (expected.token_ids, expected.stop)
        torch.testing.assert_close(torch.tensor(completion.logprobs), torch.tensor(expected.logprobs), atol=1e-4, rtol=1e-4)
        assert (completion.values is None) == (expected.values is None)
        if completion.values is not None:
            torch.testing.assert_close(torch.tensor(completion.values), torch.tensor(expected.values), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wrong", [3, EOS])
def test_wrong_drafts_do_no_harm(wrong, monkeypatch):
    lm = build("llama_gqa")
    asked = requests(7, SamplingParams(20, temperature=0.8), samples=2)
    expected = sample(lm, asked, max_rows=5, draft_tokens=0)
    monkeypatch.setattr(NgramDrafts, "guess", lambda self, sequence, most, eos_ids: [wrong] * most)
    found = sample(lm, asked, max_rows=5)
    assert {key: c.token_ids for key, c in found.items()} == {key: c.token_ids for key, c in expected.items()}


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2", "opt"])
def test_drafts_stay_within_the_length_limit_and_the_cache(name, monkeypatch):
    lm = build(name)
    asked = [SampleRequest(str(n), (5,) * n, SamplingParams(129 - n), (n,), eos_ids=()) for n in (2, 60, 10)]
    expected = sample(lm, asked, draft_tokens=0)
    monkeypatch.setattr(NgramDrafts, "guess", lambda self, sequence, most, eos_ids: [3] * most)
    found = sample(lm, asked)  # the last position of the model is the last that is read
    assert {key: c.token_ids for key, c in found.items()} == {key: c.token_ids for key, c in expected.items()}


@pytest.mark.parametrize("max_rows", [3, 64])
def test_correct_drafts_are_kept_up_to_the_end(max_rows, monkeypatch):
    lm = build("llama_gqa")
    policy = Policy(lm, "shared")
    torch.nn.init.normal_(policy.value_head.weight)
    asked = requests(9, SamplingParams(30, temperature=0.8, record_values=True), samples=2)
    expected = sample(policy, asked, draft_tokens=0)
    texts = [(*r.prompt_ids, *expected[r.id, i].token_ids) for r in asked for i in range(2)]

    def known(self, sequence, most, eos_ids):  # EOS included, and the continuation in another sample of the prompt
        ahead = [text for text in texts if text[: len(sequence)] == tuple(sequence)]
        return list(ahead[0][len(sequence) :][:most]) if ahead else []

    monkeypatch.setattr(NgramDrafts, "guess", known)
    counted = Steps(lm)
    found = sample(policy, asked, max_rows=max_rows)
    written = sum(len(c.token_ids) for c in found.values())
    assert len(counted.tokens) < (written / 3 if max_rows == 64 else written / 2)
    for key, completion in found.items():
        assert (completion.token_ids, completion.stop) == (expected[key].token_ids, expected[key].stop)
        for ours, theirs in ((completion.logprobs, expected[key].logprobs), (completion.values, expected[key].values)):
            torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), atol=1e-4, rtol=1e-4)


def test_the_number_of_drafts_can_be_zero_but_not_negative():
    with pytest.raises(UserError, match="draft_tokens must not be negative, got -1"):
        InProcessSampler(draft_tokens=-1)

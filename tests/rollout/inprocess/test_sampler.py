"""The in-process sampler against ``generate``, against plain forward passes, and against itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from transformers import (
    PreTrainedModel,
    Qwen2Config,
)

from reft_pl.errors import UserError
from reft_pl.models.packing import current_packing
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason, TokenBatch
from tests.random_models import random_model
from tests.rollout.inprocess.sampling import CONFIGS, EOS, ROPE, VOCAB, build, requests, sample


@pytest.fixture(scope="module", params=CONFIGS)
def lm(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return build("llama_gqa")


def generate(lm: PreTrainedModel, request: SampleRequest) -> tuple[int, ...]:
    ids = torch.tensor([request.prompt_ids])
    out = lm.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=request.params.max_new_tokens,
        eos_token_id=list(request.eos_ids) or None,
        pad_token_id=EOS,
    )
    return tuple(out[0, ids.shape[1] :].tolist())


def full_forward_logprobs(lm: PreTrainedModel, request: SampleRequest, completion: Completion) -> torch.Tensor:
    ids = torch.tensor([request.prompt_ids + completion.token_ids])
    with torch.no_grad():
        logits = lm(ids).logits[0, len(request.prompt_ids) - 1 : -1]
    logprobs = (logits / (request.params.temperature or 1.0)).log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]


@pytest.mark.parametrize("settings", [{}, {"max_rows": 3, "prefill_tokens": 30}])
def test_greedy_is_generate(lm: PreTrainedModel, settings: dict[str, int]) -> None:
    asked = requests(7, SamplingParams(max_new_tokens=12, temperature=0.0))
    found = sample(lm, asked, **settings)
    stops = set()
    for request in asked:
        completion = found[request.id, 0]
        assert completion.token_ids == generate(lm, request)
        assert (completion.token_ids[-1] == EOS) == (completion.stop is StopReason.EOS)
        stops.add(completion.stop)
    assert StopReason.LENGTH in stops


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.6])
def test_logprobs_are_those_of_a_full_forward_pass(lm: PreTrainedModel, temperature: float) -> None:
    asked = requests(6, SamplingParams(max_new_tokens=8, temperature=temperature, top_k=20, top_p=0.95), samples=2)
    found = sample(lm, asked, max_rows=5)
    for request in asked:
        for index in range(2):
            completion = found[request.id, index]
            expected = full_forward_logprobs(lm, request, completion)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampler_logprobs_and_values_are_the_scorers(lm: PreTrainedModel, temperature: float) -> None:
    policy = Policy(lm, "shared")
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight)
    asked = requests(6, SamplingParams(max_new_tokens=8, temperature=temperature, record_values=True))
    found = sample(policy, asked, max_rows=4)
    sequences = [r.prompt_ids + found[r.id, 0].token_ids for r in asked]
    width = max(map(len, sequences))
    ids = torch.tensor([s + (EOS,) * (width - len(s)) for s in sequences])
    columns = torch.arange(width)
    lengths = torch.tensor([len(s) for s in sequences])[:, None]
    first_action = torch.tensor([len(r.prompt_ids) - 1 for r in asked])[:, None]
    actions = (columns >= first_action) & (columns < lengths - 1)
    with torch.no_grad():
        scores = score(policy, TokenBatch(ids, columns < lengths, actions), temperature=temperature)
    sampled = torch.tensor([logprob for r in asked for logprob in found[r.id, 0].logprobs])
    torch.testing.assert_close(scores.logprobs[actions], sampled, atol=1e-4, rtol=0)
    assert scores.values is not None
    recorded = torch.tensor([value for r in asked for value in found[r.id, 0].values or ()])
    torch.testing.assert_close(scores.values[actions], recorded, atol=1e-4, rtol=0)


def test_values_are_recorded_if_the_value_head_shares_the_trunk(llama: PreTrainedModel) -> None:
    asked = requests(2, SamplingParams(max_new_tokens=3, record_values=True))
    unasked = requests(2, SamplingParams(max_new_tokens=3))
    assert all(completion.values is None for completion in sample(Policy(llama, "shared"), unasked).values())
    assert all(completion.values is None for completion in sample(llama, asked).values())
    assert all(completion.values is None for completion in sample(Policy(llama, "separate"), asked).values())
    assert all(len(c.values or ()) == len(c.token_ids) for c in sample(Policy(llama, "shared"), asked).values())


def test_samples_do_not_depend_on_the_batch(lm: PreTrainedModel) -> None:
    asked = requests(7, SamplingParams(max_new_tokens=10), samples=2)
    alone: dict[tuple[str, int], Completion] = {}
    for request in asked:
        alone |= sample(lm, [request], max_rows=1)
    for order, settings in (
        (asked, {"max_rows": 64}),
        (asked[::-1], {"max_rows": 64}),
        (asked[::-1], {"max_rows": 5, "prefill_tokens": 50}),
        (asked, {"max_rows": 2}),
    ):
        together = sample(lm, order, **settings)
        assert {k: c.token_ids for k, c in together.items()} == {k: c.token_ids for k, c in alone.items()}
    assert len({c.token_ids for c in alone.values()}) > 10


def test_rows_with_different_parameters_share_a_batch(llama: PreTrainedModel) -> None:
    kinds = [
        SamplingParams(9, temperature=0.0),
        SamplingParams(5, temperature=0.5),
        SamplingParams(12, top_k=3),
        SamplingParams(7, top_p=0.6, temperature=1.3),
        SamplingParams(3),
    ]
    base = requests(10, kinds[0])
    asked = [SampleRequest(r.id, r.prompt_ids, kinds[i % 5], r.seeds, eos_ids=r.eos_ids) for i, r in enumerate(base)]
    together = sample(llama, asked)
    for request in asked:
        assert sample(llama, [request])[request.id, 0].token_ids == together[request.id, 0].token_ids


class ForwardLog:
    """Count the tokens that a model reads: of prompts, and in every decoding step."""

    def __init__(self, lm: PreTrainedModel) -> None:
        self.prefill_tokens = 0
        self.decoded: list[int] = []
        self._handle = lm.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        tokens = kwargs["input_ids"].shape[1]
        if current_packing().decoding:
            self.decoded.append(tokens)
        else:
            self.prefill_tokens += tokens

    def close(self) -> None:
        self._handle.remove()


@pytest.fixture
def log(llama: PreTrainedModel) -> Iterator[ForwardLog]:
    counter = ForwardLog(llama)
    yield counter
    counter.close()


@pytest.mark.parametrize("max_rows", [1, 4, 64])
def test_no_step_is_spent_on_a_finished_row(llama: PreTrainedModel, log: ForwardLog, max_rows: int) -> None:
    asked = requests(10, SamplingParams(max_new_tokens=30), samples=2)
    found = sample(llama, asked, max_rows=max_rows, draft_tokens=0)
    assert len({len(c.token_ids) for c in found.values()}) > 5  # they end at different times
    assert sum(log.decoded) == sum(len(c.token_ids) - 1 for c in found.values())
    assert max(log.decoded) <= max_rows


def test_slots_are_refilled_while_others_decode(llama: PreTrainedModel, log: ForwardLog) -> None:
    found = sample(llama, requests(40, SamplingParams(max_new_tokens=30)), max_rows=8, draft_tokens=0)
    busy = sum(len(c.token_ids) - 1 for c in found.values())
    assert len(log.decoded) < 1.3 * busy / 8 + 30


@pytest.mark.parametrize("max_rows", [2, 7, 64])
def test_samples_of_a_prompt_share_one_prefill(llama: PreTrainedModel, log: ForwardLog, max_rows: int) -> None:
    asked = requests(4, SamplingParams(max_new_tokens=8), samples=9)
    sample(llama, asked, max_rows=max_rows)
    assert log.prefill_tokens == sum(len(r.prompt_ids) for r in asked)


def test_the_first_token_may_be_eos(llama: PreTrainedModel, log: ForwardLog) -> None:
    everything = tuple(range(VOCAB))
    found = sample(llama, requests(5, SamplingParams(max_new_tokens=8), samples=3, eos_ids=everything), max_rows=2)
    assert all(len(c.token_ids) == 1 and c.stop is StopReason.EOS for c in found.values())
    assert log.decoded == []


def test_length_limit_of_one(llama: PreTrainedModel) -> None:
    found = sample(llama, requests(5, SamplingParams(max_new_tokens=1), eos_ids=()))
    assert all(len(c.token_ids) == 1 and c.stop is StopReason.LENGTH for c in found.values())


def test_without_eos_the_length_limit_ends_all(llama: PreTrainedModel) -> None:
    found = sample(llama, requests(5, SamplingParams(max_new_tokens=70), eos_ids=()))
    assert {(len(c.token_ids), c.stop) for c in found.values()} == {(70, StopReason.LENGTH)}


def test_a_last_token_that_is_eos_ends_by_eos(llama: PreTrainedModel) -> None:
    request = requests(1, SamplingParams(max_new_tokens=6, temperature=0.0), eos_ids=())[0]
    written = sample(llama, [request])[request.id, 0].token_ids
    first = written.index(written[-1]) + 1
    limited = SampleRequest(request.id, request.prompt_ids, SamplingParams(first, 0.0), eos_ids=(written[-1],))
    assert sample(llama, [limited])[request.id, 0].stop is StopReason.EOS


def test_prompts_can_contain_the_eos_token(lm: PreTrainedModel) -> None:
    asked = [SampleRequest(str(n), (EOS,) * n + (5,), SamplingParams(6, 0.0), eos_ids=(EOS,)) for n in (1, 4, 9)]
    found = sample(lm, asked)
    for request in asked:
        assert found[request.id, 0].token_ids == generate(lm, request)


def test_completions_are_yielded_as_they_end(llama: PreTrainedModel, log: ForwardLog) -> None:
    base = requests(2, SamplingParams(40), eos_ids=())
    asked = [base[0], SampleRequest("short", base[1].prompt_ids, SamplingParams(2), eos_ids=())]
    sampler = InProcessSampler()
    sampler.sync(Policy(llama))
    stream = sampler.stream(asked)
    assert next(stream).request_id == "short"
    assert len(log.decoded) == 1
    assert next(stream).request_id == base[0].id
    assert next(stream, None) is None


def test_the_model_is_unpatched_between_completions() -> None:
    lm = build("gpt2").train()
    lm.transformer.drop.eval()
    modes = [module.training for module in lm.modules()]
    attention = lm.config._attn_implementation
    sampler = InProcessSampler(max_rows=2)
    sampler.sync(Policy(lm))
    for _ in sampler.stream(requests(4, SamplingParams(5))):
        assert [module.training for module in lm.modules()] == modes
        assert lm.config._attn_implementation == attention
        assert torch.is_grad_enabled()
        lm(torch.tensor([[3, 4, 5]])).logits.sum().backward()
    assert all(p.grad is not None for p in lm.parameters())


def test_the_model_is_unpatched_after_an_error() -> None:
    lm = build("llama_mha").train()
    attention = lm.config._attn_implementation
    with torch.no_grad():
        lm.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(lm, requests(2, SamplingParams(5)))
    assert lm.training
    assert lm.config._attn_implementation == attention


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_configured_attention_is_restored(attention: str) -> None:
    lm = build("llama_gqa")
    lm.set_attn_implementation(attention)
    sample(lm, requests(2, SamplingParams(3)))
    assert lm.config._attn_implementation == attention


def test_bf16_logprobs_stay_near_the_full_forward_pass() -> None:
    lm = build("llama_gqa").bfloat16()
    asked = requests(6, SamplingParams(12))
    found = sample(lm, asked)
    for request in asked:
        completion = found[request.id, 0]
        expected = full_forward_logprobs(lm, request, completion).float()
        assert (torch.tensor(completion.logprobs) - expected).abs().mean() < 0.05


def test_a_sliding_window_shorter_than_the_text_slides() -> None:
    config = Qwen2Config(
        **ROPE, num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=30, max_window_layers=0
    )
    lm = random_model(config)
    for request in requests(3, SamplingParams(60, 0.0), longest=40):
        assert sample(lm, [request])[request.id, 0].token_ids == generate(lm, request)


def test_positions_that_the_model_lacks_are_refused(lm: PreTrainedModel) -> None:
    prompt = tuple(range(3, 13))
    fits = SampleRequest("fits", prompt, SamplingParams(128 - 10 + 1), eos_ids=())
    assert len(sample(lm, [fits])["fits", 0].token_ids) == 119
    with pytest.raises(UserError, match=r"'too long' may take 130 tokens .* 128 positions"):
        sample(lm, [SampleRequest("too long", prompt, SamplingParams(120), eos_ids=())])


def test_a_sampler_without_a_policy_or_rows_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(RuntimeError, match="sync"):
        next(InProcessSampler().stream(requests(1, SamplingParams(3))))
    with pytest.raises(UserError, match="max_rows"):
        InProcessSampler(max_rows=0)
    assert sample(llama, []) == {}


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("draft_tokens", [0, 8])
def test_ids_without_a_token_are_never_sampled_and_scores_agree(llama, temperature, draft_tokens):
    """An LM head wider than the tokenizer: sampler and scorer record log-probabilities of the full head."""
    padding = VOCAB - 9
    policy = Policy(copy.deepcopy(llama))
    with torch.no_grad():
        policy.lm_head.weight[padding:] *= 4  # so that they would be written
    params = SamplingParams(20, temperature)
    free = sample(policy, requests(6, params), draft_tokens=draft_tokens)
    assert any(token >= padding for c in free.values() for token in c.token_ids)
    asked = requests(6, replace(params, suppressed=((padding, VOCAB),)))
    for (name, _), completion in sample(policy, asked, draft_tokens=draft_tokens).items():
        assert max(completion.token_ids) < padding
        prompt = asked[int(name)].prompt_ids
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        actions = torch.zeros_like(ids, dtype=torch.bool)
        actions[0, len(prompt) - 1 : -1] = True
        scored = score(policy, TokenBatch(ids, torch.ones_like(actions), actions)).logprobs[actions]
        torch.testing.assert_close(torch.tensor(completion.logprobs), scored, atol=1e-4, rtol=0)

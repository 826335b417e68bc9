"""A real vLLM engine against the in-process sampler and the scorer, in float32, and against corrupted weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.models.adapters import add_adapters
from reft_pl.models.policy import Policy
from reft_pl.models.settings import LoRASettings
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.vllm import VLLMSampler
from reft_pl.rollout.vllm.engine import PREFILL_TOKENS
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason

from .conftest import EOS, build, requests, sample

pytestmark = pytest.mark.vllm


def scored(policy: Policy, request: SampleRequest, completion: Completion) -> Tensor:
    """Score a completion under the policy at its sampling temperature."""
    ids = torch.tensor([request.prompt_ids + completion.token_ids])
    with torch.no_grad():
        logits = policy.lm(ids).logits[0, len(request.prompt_ids) - 1 : -1]
    logprobs = (logits / (request.params.temperature or 1.0)).log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]


def test_greedy_equals_the_in_process_sampler(vllm_sampler: VLLMSampler, policy: Policy) -> None:
    asked = requests(12, SamplingParams(max_new_tokens=16, temperature=0.0), eos_ids=tuple(range(2, 9)))
    ours = InProcessSampler()
    ours.sync(policy)
    expected, found = sample(ours, asked), sample(vllm_sampler, asked)
    assert {c.stop for c in found.values()} == {StopReason.EOS, StopReason.LENGTH}
    for key, completion in found.items():
        assert completion.token_ids == expected[key].token_ids
        assert completion.stop is expected[key].stop
        torch.testing.assert_close(completion.logprobs, expected[key].logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("params", [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 5, 1.0), (1.6, 20, 0.9)])
def test_logprobs_are_those_at_the_temperature_before_truncation(
    params: tuple[float, int, float], vllm_sampler: VLLMSampler, policy: Policy
) -> None:
    asked = requests(6, SamplingParams(12, *params), samples=2)
    found = sample(vllm_sampler, asked)
    for request in asked:
        for index in range(2):
            completion = found[request.id, index]
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), scored(policy, request, completion), atol=1e-4, rtol=0
            )


def test_temperatures_do_not_mix(vllm_sampler: VLLMSampler, policy: Policy) -> None:
    cold, hot = (requests(4, SamplingParams(6, temperature), eos_ids=())[i::2] for i, temperature in ((0, 0.5), (1, 2.0)))
    asked = {request.id: request for request in cold + hot}
    for (name, _), completion in sample(vllm_sampler, cold + hot).items():
        reported = torch.tensor(completion.logprobs)
        torch.testing.assert_close(reported, scored(policy, asked[name], completion), atol=1e-4, rtol=0)


def test_a_seed_repeats_its_sample_in_any_batch(vllm_sampler: VLLMSampler) -> None:
    asked = requests(8, SamplingParams(max_new_tokens=12), samples=3)
    found = sample(vllm_sampler, asked)
    assert len({c.token_ids for c in found.values()}) > 16
    assert sample(vllm_sampler, asked) == found, "bitwise equal in the same batch"
    again = sample(vllm_sampler, asked[2:4])
    assert {key: c.token_ids for key, c in again.items()} == {key: found[key].token_ids for key in again}


def test_more_prompt_tokens_than_one_pass_reads(vllm_sampler: VLLMSampler, policy: Policy) -> None:
    prompts = [tuple(3 + (i + k) % 80 for k in range(100)) for i in range(40)]
    assert sum(map(len, prompts)) > PREFILL_TOKENS
    asked = [SampleRequest(str(i), ids, SamplingParams(4), (i,), eos_ids=()) for i, ids in enumerate(prompts)]
    found = sample(vllm_sampler, asked)
    reported = torch.tensor(found["39", 0].logprobs)
    torch.testing.assert_close(reported, scored(policy, asked[39], found["39", 0]), atol=1e-4, rtol=0)


def test_the_request_sets_the_eos_ids(vllm_sampler: VLLMSampler) -> None:
    params = SamplingParams(max_new_tokens=40, temperature=1.0)
    for eos_ids in ((EOS, 7), ()):
        found = sample(vllm_sampler, requests(8, params, samples=2, eos_ids=eos_ids)).values()
        for completion in found:
            assert not set(completion.token_ids[:-1]) & set(eos_ids)
            assert (completion.stop is StopReason.EOS) == (completion.token_ids[-1] in eos_ids)
        assert {c.stop for c in found} == ({StopReason.EOS, StopReason.LENGTH} if eos_ids else {StopReason.LENGTH})


def test_completions_are_yielded_as_they_end(vllm_sampler: VLLMSampler) -> None:
    short, long = (requests(2, SamplingParams(n, temperature=0.0), eos_ids=())[i] for i, n in ((0, 3), (1, 30)))
    stream = vllm_sampler.stream([long, short])
    assert next(stream).request_id == short.id
    stream.close()  # aborts the remaining requests and frees the engine
    assert len(sample(vllm_sampler, [short])) == 1


def test_an_update_of_one_bit_arrives(vllm_sampler: VLLMSampler, policy: Policy) -> None:
    for name, parameter in policy.lm.named_parameters():
        parameter.data.view(torch.int32).flatten()[-1] ^= 1
        vllm_sampler.sync(policy)  # raises if the weights did not arrive
        assert vllm_sampler._digest is not None, name


def test_after_an_update_the_engine_samples_with_it(vllm_sampler: VLLMSampler, policy: Policy) -> None:
    asked = requests(4, SamplingParams(max_new_tokens=12))
    sample(vllm_sampler, asked)  # fills the prefix cache, which the next sync must clear
    with torch.no_grad():
        for parameter in policy.lm.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)), alpha=0.05)
    vllm_sampler.sync(policy)
    found = sample(vllm_sampler, asked)
    for request in asked:
        reported = torch.tensor(found[request.id, 0].logprobs)
        torch.testing.assert_close(reported, scored(policy, request, found[request.id, 0]), atol=1e-4, rtol=0)


def test_adapters_are_sampled_with_merged(vllm_sampler: VLLMSampler, policy: Policy) -> None:
    before = policy.lm.model.layers[0].self_attn.q_proj.weight.clone()
    add_adapters(policy.lm, LoRASettings(r=4), seed=0)
    for name, parameter in policy.lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    vllm_sampler.sync(policy)
    asked = requests(4, SamplingParams(max_new_tokens=12))
    for (name, _), completion in sample(vllm_sampler, asked).items():
        reported = torch.tensor(completion.logprobs)
        torch.testing.assert_close(reported, scored(policy, asked[int(name)], completion), atol=1e-4, rtol=0)
    assert torch.equal(policy.lm.model.layers[0].self_attn.q_proj.base_layer.weight, before), "the policy is unchanged"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm")
def test_a_compiled_engine_samples_with_new_weights() -> None:
    sampler = VLLMSampler(max_rows=8, max_model_len=128, cache_gib=0.125)  # replaces the engine of the other tests
    asked = requests(4, SamplingParams(12, temperature=0.8))
    for seed in (0, 1):
        policy = Policy(build(seed))
        sampler.sync(policy)
        for (name, _), completion in sample(sampler, asked).items():
            reported = torch.tensor(completion.logprobs)
            torch.testing.assert_close(reported, scored(policy, asked[int(name)], completion), atol=1e-4, rtol=0)
    sampler.close()
    with pytest.raises(RuntimeError, match="call sync"):
        list(sampler.stream(asked))


def nothing(weights: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    return list(weights)[:0]


def all_but_one(weights: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    return [(name, w) for name, w in weights if not name.endswith("layers.1.self_attn.v_proj.weight")]


def one_bit_less(weights: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    changed = dict(weights)
    damaged = changed["model.layers.0.mlp.down_proj.weight"].clone()
    damaged.view(torch.int32)[3, 5] ^= 1
    return list((changed | {"model.layers.0.mlp.down_proj.weight": damaged}).items())


@pytest.mark.parametrize("corrupt", [nothing, all_but_one, one_bit_less])
def test_missing_weights_are_detected(corrupt: Any, vllm_sampler: VLLMSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    load = vllm_sampler._engine.load
    monkeypatch.setattr(vllm_sampler._engine, "load", lambda weights: load(corrupt(weights)))
    with pytest.raises(UserError, match=r"other weights than the policy|failed to load the policy's weights"):
        vllm_sampler.sync(Policy(build(seed=1)))
    with pytest.raises(RuntimeError, match="call sync"):
        list(vllm_sampler.stream(requests(1, SamplingParams(2))))


def test_stale_weights_in_a_kernel_are_detected(vllm_sampler: VLLMSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load weights into the parameters, but not into the packed copies that the CPU computes with."""
    (model,) = vllm_sampler._engine._engine.apply_model(lambda model: model)
    layer = model.model.layers[1].mlp.down_proj
    former = layer.cpu_linear
    load = vllm_sampler._engine._engine.collective_rpc

    def forgetful(method: str, *args: Any, **kwargs: Any) -> Any:
        result = load(method, *args, **kwargs)
        if method == "reft_load_weights":
            layer.cpu_linear = former
        return result

    monkeypatch.setattr(vllm_sampler._engine._engine, "collective_rpc", forgetful)
    with pytest.raises(UserError, match="other weights than the policy"):
        vllm_sampler.sync(Policy(build(seed=1)))


def test_unchanged_weights_are_not_sent_again(
    vllm_sampler: VLLMSampler, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_sampler._engine, "load", None)
    vllm_sampler.sync(policy)


def test_an_engine_that_dies_is_one_sentence(vllm_sampler: VLLMSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = vllm_sampler.stream([requests(2, SamplingParams(n, temperature=0.0), eos_ids=())[0] for n in (2, 9)])
    next(stream)

    def broken() -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(vllm_sampler._engine._engine, "step", broken)
        with pytest.raises(UserError, match=r"the vLLM engine failed while sampling \(RuntimeError: out of memory\)"):
            list(stream)


def test_a_request_that_is_too_long_is_one_sentence(vllm_sampler: VLLMSampler) -> None:
    with pytest.raises(UserError, match="may take 200 tokens of prompt and completion, and the rollout engine allows 128"):
        list(vllm_sampler.stream([SampleRequest("x", (5,) * 100, SamplingParams(100), eos_ids=())]))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_suppressed_ids_are_never_sampled(vllm_sampler: VLLMSampler, policy: Policy, temperature: float) -> None:
    asked = requests(4, SamplingParams(12, temperature), eos_ids=())
    free = sample(vllm_sampler, asked)
    spans = tuple((token, token + 1) for token in sorted({c.token_ids[0] for c in free.values()}))
    held = [replace(request, params=replace(request.params, suppressed=spans)) for request in asked]
    for (name, _), completion in sample(vllm_sampler, held).items():
        assert not any(start <= token < end for token in completion.token_ids for start, end in spans)
        expected = scored(policy, held[int(name)], completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
    assert sample(vllm_sampler, asked) == free, "suppressed only in those requests"

"""Length-dependent rotary factors, and logit scaling and soft-capping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from reft_pl.errors import UserError
from reft_pl.models.architecture import rotary_limit, trunk_of
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import SampleRequest, SamplingParams
from tests.random_models import random_model

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}


def phi3() -> PreTrainedConfig:
    return AutoConfig.for_model(
        "phi3", **SIZES, max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters=LONGROPE | FACTORS
    )


def llama(rope: dict[str, Any], positions: int = 64) -> PreTrainedConfig:
    return AutoConfig.for_model("llama", **SIZES, max_position_embeddings=positions, rope_parameters=rope)


def gemma3(rope: dict[str, Any]) -> PreTrainedConfig:
    kinds = ["sliding_attention", "full_attention"]
    layers = {
        "layer_types": kinds,
        "head_dim": 8,
        "sliding_window": 8,
        "rope_parameters": dict(zip(kinds, (DEFAULT, rope), strict=True)),
    }
    return AutoConfig.for_model("gemma3_text", **SIZES, max_position_embeddings=16, **layers)


LIMITED = [phi3(), llama(DYNAMIC, 16), gemma3(DYNAMIC)]


def test_the_limit_is_the_length_at_which_factors_change() -> None:
    assert [rotary_limit(config) for config in LIMITED] == [16, 16, 16]
    assert [rotary_limit(config) for config in (llama(DEFAULT), llama(YARN), gemma3(DEFAULT))] == [None, None, None]


@pytest.mark.parametrize("config", LIMITED, ids=["longrope", "dynamic", "dynamic in some layers"])
def test_rows_of_all_lengths_are_scored_as_if_unpadded(config: PreTrainedConfig) -> None:
    lm = random_model(config, std=0.3)
    policy = Policy(lm)
    torch.manual_seed(1)
    lengths = [30, 16, 9, 17, 30]
    ids = torch.randint(3, 61, (len(lengths), 33))
    mask = torch.arange(33) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        for _ in range(2):  # dynamic factors persist after the pass that computed them
            hidden = policy.hidden_states(ids, mask)
            for row, length in enumerate(lengths):
                fresh = random_model(config, std=0.3)
                alone = trunk_of(fresh)(input_ids=ids[row : row + 1, :length], use_cache=False).last_hidden_state
                torch.testing.assert_close(hidden[row, :length], alone[0], atol=1e-4, rtol=0)


def test_scoring_in_groups_passes_gradients_to_every_row() -> None:
    lm = random_model(phi3(), std=0.3)
    embedded: list[torch.Tensor] = []
    hook = lm.get_input_embeddings().register_forward_hook(lambda m, a, output: embedded.append(output))
    ids = torch.randint(3, 61, (2, 20))
    mask = torch.arange(20) < torch.tensor([[20], [12]])
    Policy(lm).hidden_states(ids, mask).square().sum().backward()
    hook.remove()
    assert len(embedded) == 2
    assert all(parameter.grad is not None for parameter in lm.model.parameters())


@pytest.mark.parametrize("config", LIMITED, ids=["longrope", "dynamic", "dynamic in some layers"])
def test_sampling_beyond_the_limit_is_refused_and_exact_up_to_it(config: PreTrainedConfig) -> None:
    policy = Policy(random_model(config, std=0.3))
    torch.manual_seed(1)
    with torch.no_grad():  # a long text first: its factors must not persist
        policy.hidden_states(torch.randint(3, 61, (1, 16 + 14)), torch.ones(1, 30, dtype=torch.bool))
    sampler = InProcessSampler()
    sampler.sync(policy)
    prompt = tuple(range(3, 12))
    completion = next(sampler.stream([SampleRequest("fits", prompt, SamplingParams(7), eos_ids=())]))
    ids = torch.tensor([prompt + completion.token_ids])
    logits = random_model(config, std=0.3)(input_ids=ids, use_cache=False).logits[0, 8:-1]
    plain = logits.log_softmax(-1).gather(-1, ids[0, 9:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(completion.logprobs), plain, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="'long' may take 17 tokens"):
        next(sampler.stream([SampleRequest("long", prompt, SamplingParams(8), eos_ids=())]))
    assert policy.positions == 15


@pytest.mark.parametrize(
    ("kind", "quirk"),
    [
        ("recurrent_gemma", {"logits_soft_cap": 0.5, "lru_width": 32, "num_hidden_layers": 3, "attention_window_size": 8}),
        ("gemma2", {"final_logit_softcapping": 0.5, "head_dim": 8}),
        ("hyperclovax", {"logits_scaling": 3.0}),
        ("cohere", {"logit_scale": 0.3}),
        ("granite", {"logits_scaling": 3.0}),
        ("llama", {"logit_scale": 1.0}),
    ],
)
def test_logits_are_capped_and_scaled_as_the_model_does(kind: str, quirk: dict[str, Any]) -> None:
    lm = random_model(AutoConfig.for_model(kind, **{**SIZES, **quirk}), std=0.3)
    policy, ids = Policy(lm), torch.arange(3, 20)[None]
    with torch.no_grad():
        logits = policy.logits(policy.hidden_states(ids, torch.ones_like(ids, dtype=torch.bool)))
        torch.testing.assert_close(logits, lm(input_ids=ids, use_cache=False).logits, atol=1e-4, rtol=0)


def test_an_unknown_cap_is_found_in_a_model_with_small_weights(tmp_path, monkeypatch) -> None:
    config = llama(DEFAULT)
    config.save_pretrained(tmp_path)
    model = type(AutoModelForCausalLM.from_config(config))
    original = model.forward

    def capped(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        output.logits = torch.tanh(output.logits / 30) * 30
        return output

    monkeypatch.setattr(model, "forward", capped)
    with pytest.raises(UserError, match="transforms its logits in a way"):
        load_policy(PolicySettings(str(tmp_path), from_scratch=True, dtype="float32"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "camembert", "xlm-roberta", "rembert", "roformer", "ernie"])
@pytest.mark.parametrize("is_decoder", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_encoders_configured_as_decoders_are_refused(kind: str, is_decoder: bool, dtype: Any, tmp_path) -> None:
    AutoConfig.for_model(kind, **SIZES, is_decoder=is_decoder).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"encoder.*: .* choose one of these"):
        load_policy(PolicySettings(str(tmp_path), from_scratch=True, dtype=dtype))

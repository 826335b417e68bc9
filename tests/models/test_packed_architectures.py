"""Sampler, scorer and a plain forward pass agree for tiny random models of many architectures."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from reft_pl.errors import UserError
from reft_pl.models.loading import load_policy
from reft_pl.models.packed_architectures import PACKED, runs_packed
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.inprocess import sampler as inprocess
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason, TokenBatch
from tests.random_models import random_model

VOCAB = 61
EOS = 2
WINDOW = 8

SPECIAL = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 128, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16}
SHARED_KEYS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2}
PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "sliding_window": WINDOW}

SETTINGS: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "codegen": {**GPT, "n_ctx": 128, "rotary_dim": 4},
    "cohere2": SLIDING,
    "ctrl": {**GPT, "dff": 48},
    "cwm": SLIDING,
    "ernie4_5_moe": {
        "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_layer_start_index": 0, "moe_layer_end_index": 1,
    },
    "doge": {"sliding_window": WINDOW},
    "exaone4": SLIDING,
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 32, "mamba_n_heads": 4},
    "falcon_mamba": {"state_size": 4, "time_step_rank": 4},
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": WINDOW},
    "gemma3_text": {**SLIDING, "query_pre_attn_scalar": 8},
    "gemma3n_text": {**SHARED_KEYS, **PER_LAYER, "altup_num_inputs": 2, "laurel_rank": 4, "activation_sparsity_pattern": None},
    "gemma4_text": {**SHARED_KEYS, **PER_LAYER, "num_kv_shared_layers": 0, "global_head_dim": 8},
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "gpt_oss": {"sliding_window": WINDOW},
    "gptj": {**GPT, "rotary_dim": 4},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16},
    "bamba": {**MAMBA, "attn_layer_indices": [1], "mamba_expand": 2},
    "jamba": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "jetmoe": {"kv_channels": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "llama4_text": {
        "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": WINDOW, "interleave_moe_layer_step": 2,
    },
    "mamba": {"state_size": 4, "time_step_rank": 4},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 2, "chunk_size": 16},
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"sliding_window": WINDOW},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "nemotron_h": {
        "num_hidden_layers": 3, "layers_block_type": ["mamba", "attention", "mlp"], "mamba_num_heads": 8, "mamba_head_dim": 8,
        "n_groups": 1, "ssm_state_size": 8, "chunk_size": 16,
    },
    "olmo3": SLIDING,
    "olmo_hybrid": LINEAR,
    "openai-gpt": GPT,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi3": {"head_dim": None, "sliding_window": WINDOW},
    "phimoe": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen2_moe": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": WINDOW, "num_hidden_layers": 3},
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {"sliding_window": WINDOW},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
    "xlstm": {"num_heads": 4},
    "zamba2": {
        "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3],
        "mamba_d_state": 8, "n_mamba_heads": 4, "mamba_headdim": 16, "mamba_ngroups": 1, "chunk_size": 16,
        "use_mamba_kernels": False, "num_mem_blocks": 1, "attention_head_dim": 16, "attention_hidden_size": 64,
    },
}  # fmt: skip
"""What a tiny model of the kind needs beyond ``SIZES``."""

VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {"image_size": 28, "patch_size": 14}
NESTED: dict[str, dict[str, Any]] = {
    "gemma3": {"vision_config": VISION | IMAGES, "image_token_id": 60},
    "llama4": {
        "vision_config": {**VISION, **IMAGES, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
    },
    "qwen3_5": {
        "vision_config": {"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": 32}
    },
}
"""Multimodal models and the rest of their configurations beside the text part."""

LIBRARY = (
    "doge",
    "phimoe",
    "bamba", "bloom", "falcon", "falcon_h1", "falcon_mamba", "gemma2", "gpt_neo", "gpt_neox_japanese", "gpt_oss", "gptj",
    "granitemoehybrid", "jamba", "lfm2", "llama4_text", "mamba", "mamba2", "minimax", "mpt", "nemotron_h", "olmo_hybrid",
    "openai-gpt", "qwen3_5_text", "qwen3_next", "recurrent_gemma", "rwkv", "vaultgemma", "xglm", "xlstm", "zamba2",
)  # fmt: skip
"""Sampled with the cache and attention of transformers."""

FAST_TESTS = {
    "bamba", "bloom", "falcon", "gemma2", "gemma3_text", "gpt_neo", "gpt_oss", "gptj", "jamba", "lfm2", "llama4_text", "mamba",
    "mamba2", "mistral", "mpt", "phi3", "qwen2", "qwen2_moe", "recurrent_gemma", "zamba2",
}  # fmt: skip


def config_of(kind: str, **changes: Any) -> PreTrainedConfig:
    cls = CONFIG_MAPPING[kind]
    known = set(inspect.signature(cls.__init__).parameters)
    known |= {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
    settings = {name: value for name, value in SIZES.items() if name in known or name == "hidden_size"}
    settings = {**SPECIAL, **settings, **SETTINGS.get(kind, {}), **changes}
    return cls(**{name: value for name, value in settings.items() if value is not None})


def nested_config_of(kind: str) -> PreTrainedConfig:
    text = config_of(f"{kind}_text").to_dict()
    return CONFIG_MAPPING[kind](text_config=text, **NESTED[kind])


def requests(params: SamplingParams, lengths: tuple[int, ...] = (3, 7, 3, 15)) -> list[SampleRequest]:
    generator = torch.Generator().manual_seed(1)
    prompts = [tuple(torch.randint(3, VOCAB - 3, (length,), generator=generator).tolist()) for length in lengths]
    return [SampleRequest(str(i), ids, params, (i, i + 9), eos_ids=(EOS, 5, 11)) for i, ids in enumerate(prompts)]


def sample(policy: Policy, asked: list[SampleRequest], **settings: int) -> dict[tuple[str, int], Completion]:
    sampler = InProcessSampler(**settings)
    sampler.sync(policy)
    return {(completion.request_id, completion.index): completion for completion in sampler.stream(asked)}


def plain_logprobs(lm: PreTrainedModel, prompt: tuple[int, ...], written: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([prompt + written])
    with torch.no_grad():
        scores = lm(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return scores.gather(-1, torch.tensor(written)[:, None])[:, 0]


def scored(
    policy: Policy, rows: list[tuple[tuple[int, ...], tuple[int, ...]]], left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score all completions in one padded batch; return log-probabilities and values, flat, row by row."""
    width = max(len(prompt) + len(written) for prompt, written in rows) + 1
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    real, actions = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, written) in enumerate(rows):
        length = len(prompt) + len(written)
        start = width - length if left else 0
        ids[row, start : start + length] = torch.tensor(prompt + written)
        real[row, start : start + length] = True
        actions[row, start + len(prompt) - 1 : start + length - 1] = True
    with torch.no_grad():
        scores = score(policy, TokenBatch(ids, real, actions))
    assert scores.values is not None
    return scores.logprobs[actions], scores.values[actions]


def assert_agreement(lm: PreTrainedModel, packed: bool, atol: float = 2e-4) -> None:
    assert runs_packed(lm) is packed
    policy = Policy(lm, "shared").eval()
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, std=0.3)
    asked = requests(SamplingParams(12, record_values=True))
    found = sample(policy, asked, max_rows=3)
    assert len(found) == 8
    assert len({completion.token_ids for completion in found.values()}) > 4
    rows = [(request.prompt_ids, found[request.id, index].token_ids) for request in asked for index in (0, 1)]
    recorded = torch.tensor([logprob for request in asked for i in (0, 1) for logprob in found[request.id, i].logprobs])
    values = torch.tensor([value for request in asked for i in (0, 1) for value in found[request.id, i].values or ()])
    plain = torch.cat([plain_logprobs(lm, prompt, written) for prompt, written in rows])
    torch.testing.assert_close(recorded, plain, atol=atol, rtol=0)
    for left in (False, True):
        logprobs, worths = scored(policy, rows, left)
        torch.testing.assert_close(logprobs, plain, atol=atol, rtol=0)
        torch.testing.assert_close(worths, values, atol=10 * atol, rtol=0)
    for completion in found.values():
        assert completion.stop is (StopReason.EOS if completion.token_ids[-1] in (EOS, 5, 11) else StopReason.LENGTH)
        assert not {EOS, 5, 11} & set(completion.token_ids[:-1])
        assert len(completion.token_ids) <= 12
    alone = sample(policy, asked[1:2], max_rows=1)
    assert {key: found[key].token_ids for key in alone} == {key: completion.token_ids for key, completion in alone.items()}


def marked(kinds: tuple[str, ...] | list[str]) -> list[Any]:
    return [pytest.param(kind, marks=() if kind in FAST_TESTS else pytest.mark.slow) for kind in kinds]


@pytest.mark.parametrize("kind", marked(sorted(PACKED)))
def test_packed_sampler_scorer_and_model_agree(kind: str) -> None:
    assert_agreement(random_model(config_of(kind)), packed=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["afmoe", "cohere2_moe", "dots1", "exaone_moe", "laguna", "mellum", "ministral", "ministral3", "qwen3_moe"]
)
def test_sliding_windows_of_the_packed_sampler(kind: str) -> None:
    switch = {"use_sliding_window": True} if hasattr(config_of(kind), "use_sliding_window") else {}
    assert_agreement(random_model(config_of(kind, sliding_window=WINDOW, **switch)), packed=True)


@pytest.mark.parametrize("kind", marked(LIBRARY))
def test_library_sampler_scorer_and_model_agree(kind: str) -> None:
    assert_agreement(random_model(config_of(kind)), packed=False, atol=1e-3 if kind in ("zamba2", "qwen3_next") else 2e-4)


@pytest.mark.parametrize(("kind", "packed"), [("gemma3", True), ("llama4", False), ("qwen3_5", False)])
def test_windows_and_sizes_nested_in_a_multimodal_config_count(kind: str, packed: bool) -> None:
    assert_agreement(random_model(nested_config_of(kind)), packed)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gemma3_text", {"attn_logit_softcapping": 2.0}),
        ("falcon", {"alibi": True}),
        ("qwen2_moe", {**SLIDING, "use_sliding_window": False}),
        ("smollm3", {**SLIDING, "use_sliding_window": False}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ],
)
def test_variants_of_the_library_sampler(kind: str, changes: dict[str, Any]) -> None:
    assert_agreement(random_model(config_of(kind, **changes)), packed=False)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen2_moe", {"use_sliding_window": False, "sliding_window": 0}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 1}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": WINDOW}),
    ],
)
def test_disabled_and_narrow_windows(kind: str, changes: dict[str, Any]) -> None:
    assert_agreement(random_model(config_of(kind, **changes)), packed=True)


@pytest.mark.parametrize("kind", ["gemma2", "bloom", "mamba", "gemma3_text"])
def test_greedy_is_generate(kind: str) -> None:
    lm = random_model(config_of(kind))
    asked = requests(SamplingParams(12, temperature=0.0))
    found = sample(Policy(lm), asked)
    for request in asked:
        ids = torch.tensor([request.prompt_ids])
        out = lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=[EOS, 5, 11],
            pad_token_id=0,
        )
        assert found[request.id, 0].token_ids == tuple(out[0, ids.shape[1] :].tolist())


def test_rows_of_a_group_keep_their_own_parameters() -> None:
    policy = Policy(random_model(config_of("gemma2")))
    kinds = [
        SamplingParams(9, temperature=0.0),
        SamplingParams(4, temperature=0.5),
        SamplingParams(12, top_k=3),
        SamplingParams(1),
    ]
    base = requests(kinds[0], lengths=(5, 5, 5, 5))
    asked = [SampleRequest(r.id, r.prompt_ids, kind, r.seeds, eos_ids=()) for r, kind in zip(base, kinds, strict=True)]
    together = sample(policy, asked)
    for request in asked:
        assert len(together[request.id, 0].token_ids) == request.params.max_new_tokens
        assert sample(policy, [request])[request.id, 1].token_ids == together[request.id, 1].token_ids


def test_the_models_generation_settings_are_ignored() -> None:
    lm = random_model(config_of("bloom"))
    asked = requests(SamplingParams(8))
    before = sample(Policy(lm), asked)
    lm.generation_config.update(temperature=9.0, do_sample=True, repetition_penalty=5.0, max_new_tokens=2, eos_token_id=[7])
    settings = lm.generation_config.to_dict()
    after = sample(Policy(lm), asked)
    assert {key: c.token_ids for key, c in after.items()} == {key: c.token_ids for key, c in before.items()}
    assert lm.generation_config.to_dict() == settings


def test_non_finite_weights_raise() -> None:
    lm = random_model(config_of("bloom"))
    with torch.no_grad():
        lm.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(Policy(lm), requests(SamplingParams(4)))


def test_slow_sampling_warns_once() -> None:
    inprocess._warn_of_library.cache_clear()
    policy = Policy(random_model(config_of("gptj")))
    with pytest.warns(UserWarning, match="'gptj' are sampled with the KV cache and attention of transformers"):
        sample(policy, requests(SamplingParams(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(policy, requests(SamplingParams(2)))


def test_a_model_with_inconsistent_generation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_model(config_of("gptj"))
    own = lm.generate
    monkeypatch.setattr(lm, "generate", lambda ids, **settings: own((ids + 1) % VOCAB, **settings))
    with pytest.raises(UserError, match="'gptj' cannot be sampled"):
        sample(Policy(lm), requests(SamplingParams(4)))


@pytest.mark.parametrize(
    "kind", ["bloom", "gemma2", "gptj", "jamba", "llama4_text", "mamba", "mpt", "recurrent_gemma", "zamba2"]
)
@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_stored_model_loads_and_is_sampled(kind: str, from_scratch: bool, tmp_path: Path) -> None:
    random_model(config_of(kind)).save_pretrained(tmp_path)
    policy = load_policy(PolicySettings(str(tmp_path), dtype="float32", from_scratch=from_scratch), "shared")
    InProcessSampler().check(policy)
    found = sample(policy, requests(SamplingParams(3), lengths=(4,)))
    for completion in found.values():
        expected = plain_logprobs(policy.lm, requests(SamplingParams(3), lengths=(4,))[0].prompt_ids, completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-3, rtol=0)

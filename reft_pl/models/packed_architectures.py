"""Architectures that run several sequences in one row, since their attention can be replaced."""

from __future__ import annotations

from transformers import PreTrainedModel

from reft_pl.models.architecture import rotary_limit, text_config

PACKED = frozenset(
    [
        "afmoe",
        "apertus",
        "arcee",
        "aria_text",
        "biogpt",
        "bitnet",
        "codegen",
        "cohere",
        "cohere2",
        "cohere2_moe",
        "ctrl",
        "cwm",
        "diffllama",
        "dots1",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone4",
        "exaone_moe",
        "flex_olmo",
        "gemma",
        "gemma3_text",
        "gemma3n_text",
        "gemma4_text",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "granite",
        "granitemoe",
        "granitemoeshared",
        "helium",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "hyperclovax",
        "jais2",
        "jetmoe",
        "laguna",
        "llama",
        "mellum",
        "minimax_m2",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "solar_open",
        "stablelm",
        "starcoder2",
    ]
)
"""Supported values of ``model_type`` (of the text part of a multimodal model). A test compares sampler, scorer and model."""

WITHOUT_CACHE = frozenset({"kimi_linear", "nemotron_h", "xlstm", "zamba2"})
"""Architectures for which the KV cache of transformers 5.19 fails or gives different log-probabilities."""


def runs_packed(lm: PreTrainedModel) -> bool:
    """Return whether the model supports packed rows: code from transformers itself, without soft-capped attention.

    If a config disables sliding windows but lists sliding layers, its masks contain windows that no layer passes to its
    attention function, so packed attention cannot see them.
    """
    text = text_config(lm.config)
    has_known_code = type(lm).__module__.startswith("transformers.")
    hides_windows = getattr(text, "use_sliding_window", None) is False and "sliding_attention" in (
        getattr(text, "layer_types", None) or ()
    )
    capped = bool(getattr(text, "attn_logit_softcapping", None))
    return has_known_code and text.model_type in PACKED and not (capped or hides_windows)


def shares_prompts(lm: PreTrainedModel) -> bool:
    """Return whether a prompt may be computed once for several responses: in packed rows, with fixed rotary factors.

    CodeGen's attention is replaced only while it samples.
    """
    return runs_packed(lm) and rotary_limit(lm.config) is None and lm.config.model_type != "codegen"

"""GGUF files that do not hold exactly their model's weights are rejected."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from reft_pl.errors import UserError
from reft_pl.models.gguf import import_gguf

HIDDEN, INNER, LAYERS, TOKENS = 32, 48, 2, 100


def shapes(tied: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (TOKENS, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if not tied:
        found["output.weight"] = (TOKENS, HIDDEN)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"blk.{layer}.{name}.weight"] = (HIDDEN, HIDDEN)
        for name in ("ffn_gate", "ffn_up"):
            found[f"blk.{layer}.{name}.weight"] = (INNER, HIDDEN)
        found[f"blk.{layer}.ffn_down.weight"] = (HIDDEN, INNER)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}.weight"] = (HIDDEN,)
    return found


def write(
    file: Path,
    tied: bool = True,
    without: tuple[str, ...] = (),
    extra: dict[str, np.ndarray] | None = None,
    parts: int | None = None,
    temperature: bool = False,
) -> Path:
    """Write a tiny Llama; ``extra`` adds or replaces tensors."""
    tokens = ["<unk>", "<s>", "</s>", *[chr(code) for code in range(33, 127)], "aa", "bb", "cc"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([2, 3, 3, *[1] * (TOKENS - 3)])
    writer.add_token_merges(["a a", "b b", "c c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if parts is not None:
        writer.add_uint16("split.count", parts)
    if temperature:
        writer.add_float32("general.sampling.temp", 0.5)
    random = np.random.default_rng(0)
    tensors = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes(tied).items()}
    for name, values in (tensors | (extra or {})).items():
        if name not in without:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("tied", [True, False])
def test_complete_files_load(tied: bool, tmp_path: Path) -> None:
    ones = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    import_gguf(str(write(tmp_path / "a.gguf", tied, extra=ones, temperature=True)), tmp_path / "out")
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert lm.config.tie_word_embeddings is tied
    assert (lm.lm_head.weight is lm.model.embed_tokens.weight) is tied
    settings = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (settings.do_sample, settings.eos_token_id, settings.temperature) == (False, 2, None)


@pytest.mark.parametrize("name", sorted({name.replace("blk.0", "blk.1") for name in shapes(tied=True)}))
def test_any_missing_weight(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks weights of LlamaForCausalLM: |cannot read the GGUF file"):
        import_gguf(str(write(tmp_path / "a.gguf", without=(name,))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"blk.0.attn_q.bias": np.zeros(HIDDEN, dtype=np.float32)}, "no place for: blk.0.attn_q.bias"),
        ({"blk.2.attn_q.weight": np.zeros((HIDDEN, HIDDEN), dtype=np.float32)}, "no place for: blk.2.attn_q.weight"),
        ({"mystery": np.zeros(4, dtype=np.float32)}, "no place for: mystery"),
        ({"rope_freqs.weight": np.full(8, 2, dtype=np.float32)}, "no place for: rope_freqs.weight"),
        ({"blk.0.ffn_up.weight": np.zeros((INNER + 1, HIDDEN), dtype=np.float32)}, "cannot read the GGUF file|other shapes"),
        ({"output_norm.weight": np.full(HIDDEN, np.nan, dtype=np.float32)}, "NaN or infinity in model.norm.weight"),
    ],
)
def test_weights_that_the_model_lacks(extra: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refused:
        import_gguf(str(write(tmp_path / "a.gguf", extra=extra)), tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_partial_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is one of 2 parts of a model: merge them"):
        import_gguf(str(write(tmp_path / "a.gguf", without=("output_norm.weight",), parts=2)), tmp_path / "out")


@pytest.mark.parametrize("lost", [1, 100, 5000])
def test_a_truncated_file(lost: int, tmp_path: Path) -> None:
    content = write(tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(content[:-lost])
    with pytest.raises(UserError, match="cannot read the GGUF file"):
        import_gguf(str(tmp_path / "a.gguf"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

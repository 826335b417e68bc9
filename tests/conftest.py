"""Fixtures for several folders of tests."""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with public data, golden figures and hostile programs."""
    folder = Path(os.environ.get("REFT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set REFT_SHARED")
    return folder


@pytest.fixture(scope="session")
def micro_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded default's model folder, with a width that trains in milliseconds."""
    folder = tmp_path_factory.mktemp("models") / "micro"
    shutil.copytree(ROOT / "configs" / "models" / "tiny_llama", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"num_key_value_heads": 1, "head_dim": 16}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def overlay(micro_model: Path, tmp_path: Path) -> Callable[..., str]:
    """Write an overlay that shrinks a shipped config to seconds; keyword arguments are merged into its top-level keys."""

    def write(run: str, init_from: Path | None = None, **changes: dict[str, Any]) -> str:
        def stories(split: str, size: int, **init_args: Any) -> dict[str, Any]:
            return {"class_path": "StorySource", "init_args": {"split": split, "size": size, **init_args}}

        policy = {"init_from": str(init_from or micro_model), "from_scratch": init_from is None, "dtype": "float32"}
        config: dict[str, Any] = {
            "run_dir": str(tmp_path / run),
            "model": {"init_args": {"policy": policy, "optimizer": {"init_args": {"lr": 1e-3}}}},
            "data": {
                "train": [stories("train", 12)],
                "validation": [stories("validation", 4)],
                "test": {"ordinary": stories("test", 4), "unseen": stories("unseen", 4)},
                "batch_size": 4,
                "max_tokens": 200,
                "max_prompt_tokens": 190,
                "cache_dir": str(tmp_path / "cache"),
            },
            "checkpoints": {"every_n_batches": 1},
            "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1, "log_every_n_steps": 1},
        }
        path = tmp_path / f"{run}.yaml"
        path.write_text(yaml.safe_dump(merge(config, changes)))
        return str(path)

    return write


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Override leaves of ``base`` with those of ``changes``, in place."""
    for key, value in changes.items():
        base[key] = merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return base


Family = Literal["codellama", "galactica"]
Head = Literal["lm", "value", "classes"]
Layout = Literal["bin", "bin shards", "safetensors", "safetensors shards"]
Published = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def publish() -> Published:
    """Write a tiny model as the paper's authors published theirs; see ``write_published``."""
    return write_published


def write_published(
    folder: Path,
    family: Family = "codellama",
    head: Head = "lm",
    layout: Layout = "bin shards",
    *,
    wrapped: bool = False,
    classes: int = 2,
    width: int = 32,
) -> dict[str, torch.Tensor]:
    """Write a tiny model in one of the published layouts and return the weights by their plain names.

    Args:
        folder: Target folder.
        family: ``codellama``: Llama, untied embeddings, tokenizer with BOS as padding (id 1). ``galactica``: OPT, LM head
            tied to the embeddings but stored too, no BOS, a separate padding token (id 1). EOS is id 2 in both.
        head: Language model; the same with TRL's value head, as the ReFT runs left it; or sequence classifier.
        layout: Pickles (as most of theirs) or safetensors (as one of their rerankers), in one file or in shards with an index.
        wrapped: Whether the language model's names start with ``pretrained_model.``, as ZeRO-3 gathers them.
        classes: Number of classes of a classifier.
        width: Size of the hidden states.
    """
    config = (llama_config if family == "codellama" else opt_config)(width)
    auto: Any = AutoModelForCausalLM
    if head == "classes":
        auto = AutoModelForSequenceClassification
        config.num_labels, config.pad_token_id, config.eos_token_id = classes, 1, 2
    generator = torch.Generator().manual_seed(11)
    model = auto.from_config(config)
    weights = {}
    for name, tensor in model.state_dict().items():
        drawn = torch.empty_like(tensor).normal_(std=0.2, generator=generator)
        weights[name] = drawn.bfloat16() if tensor.ndim > 1 else tensor.bfloat16()
    if head != "classes" and family == "galactica":
        weights["lm_head.weight"] = weights["model.decoder.embed_tokens.weight"].clone()
    stored = {f"pretrained_model.{name}" if wrapped else name: tensor for name, tensor in weights.items()}
    if head == "value":
        extra = {
            "v_head.summary.weight": torch.empty(1, width).normal_(std=0.5, generator=generator).bfloat16(),
            "v_head.summary.bias": torch.tensor([0.25]).bfloat16(),
        }
        weights, stored = weights | extra, stored | extra
    folder.mkdir(parents=True, exist_ok=True)
    write_config(config, type(model).__name__, folder)
    write_weights(stored, layout, folder)
    write_tokenizer(family, folder)
    return weights


def llama_config(width: int) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=400, hidden_size=width, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False,
        rms_norm_eps=1e-5,
    )  # fmt: skip


def opt_config(width: int) -> PreTrainedConfig:
    return OPTConfig(
        vocab_size=400, hidden_size=width, word_embed_proj_dim=width, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=2, pad_token_id=1, activation_function="gelu",
    )  # fmt: skip


def write_config(config: PreTrainedConfig, architecture: str, folder: Path) -> None:
    """Write a config as transformers 4.34 did: ``torch_dtype``, flat rotary settings, no default values."""
    content = config.to_diff_dict() | {"architectures": [architecture], "torch_dtype": "bfloat16"}
    content |= {"transformers_version": "4.34.1", "_name_or_path": "/models/base"}
    for name in ("dtype", "rope_parameters", "tie_word_embeddings"):
        content.pop(name, None)
    if config.model_type == "llama":
        content |= {"rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(content, indent=2))


def write_weights(stored: dict[str, torch.Tensor], layout: Layout, folder: Path) -> None:
    names = list(stored)
    stem, kind = ("model", "safetensors") if layout.startswith("safetensors") else ("pytorch_model", "bin")
    shards = {f"{stem}.{kind}": names}
    if layout.endswith("shards"):
        n = 3 if kind == "safetensors" else 2
        cuts = [len(names) * i // n for i in range(n + 1)]
        shards = {f"{stem}-{i + 1:05d}-of-{n:05d}.{kind}": names[cuts[i] : cuts[i + 1]] for i in range(n)}
        index = {
            "metadata": {"total_size": sum(tensor.numel() * 2 for tensor in stored.values())},
            "weight_map": {name: file for file, held in shards.items() for name in held},
        }
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index, indent=2))
    for file, held in shards.items():
        tensors = OrderedDict((name, stored[name]) for name in held)
        if kind == "bin":
            torch.save(tensors, folder / file)
        else:
            save_file(tensors, folder / file, metadata={"format": "pt"})


def write_tokenizer(family: Family, folder: Path) -> None:
    """Write a tokenizer of single characters with the special tokens, class and files of a family."""
    specials = ["<unk>", "<s>", "</s>"] if family == "codellama" else ["<s>", "<pad>", "</s>", "<unk>"]
    characters = sorted({chr(code) for code in range(33, 127)})
    if family == "codellama":
        pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *characters]
        tokenizer = Tokenizer(
            models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        )
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special_map = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<s>", "unk_token": "<unk>"}
        settings = {"tokenizer_class": "CodeLlamaTokenizer", "legacy": None, "sp_model_kwargs": {}}
    else:
        pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special_map = {"eos_token": "</s>", "pad_token": "<pad>"}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps(special_map))
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings |= special_map | {"added_tokens_decoder": {str(i): {"content": token} | plain for i, token in enumerate(specials)}}
    settings |= {"clean_up_tokenization_spaces": False, "model_max_length": 1000000000000000019884624838656}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture
def compiler_from_nothing() -> Iterator[None]:
    """Drop code that other tests compiled, and fail instead of falling back to uncompiled layers."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield

"""Small tokenizers of the families that the prefix rule must support, and problems to tokenise."""

from __future__ import annotations

from functools import cache

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KINDS = ("gpt2", "smollm2", "qwen2", "opt", "llama")


def corpus() -> list[str]:
    """Programs with many kinds of docstring ends, so that BPE learns merges across quotes, newlines and indents."""
    ends = ["?", ".", " ?", '."', "", "...", " total ?", "!"]
    bodies = [
        "    x = 1\n    return x",
        "    # why\n    y = 2.5",
        "\n    z = 'a'\n\n\n\tw = 3",
        "\tq = {'a': [1, 2]}",
        "    \n    n = 10",
    ]
    programs = [
        f'Question:\nTom has {i * 7} pears{end}\nAnswer reasoning:\ndef solution():\n    """Tom has {i}{end}"""\n{body}'
        for i, end in enumerate(ends * 3)
        for body in bodies
    ]
    return [*programs, 'x = """\n\n\n"""\n\n    return """', "Jess\u2019s caf\u00e9 sold \u4e2d\u6587 \U0001f600."]


@cache
def build_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE (or, for llama, SentencePiece-like BPE) with the pre-tokenizer and BOS convention of a model family."""
    specials = {
        "gpt2": {"eos_token": "<|endoftext|>"},
        "smollm2": {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"},
        "qwen2": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "opt": {"eos_token": "</s>", "bos_token": "</s>", "pad_token": "<pad>"},
        "llama": {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"},
    }[kind]
    names = [*dict.fromkeys([*specials.values(), "<|im_start|>"])]
    if kind == "llama":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=[*names, *alphabet], max_token_length=12, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "qwen2")
        first = {
            "smollm2": [pre_tokenizers.Digits(individual_digits=True)],
            "qwen2": [pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")],
        }.get(kind, [])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
        tokenizer.normalizer = normalizers.NFC() if kind == "qwen2" else None
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator(corpus(), trainer)
    if kind in {"opt", "llama"}:
        bos = specials["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
    fast.add_special_tokens({"additional_special_tokens": [AddedToken("<|im_start|>")]})
    fast.chat_template = CHATML if kind in {"smollm2", "qwen2"} else None
    return fast


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Every tokenizer family in turn."""
    return build_tokenizer(request.param)


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    """The GPT-2 family: no BOS, no pad token, no chat template."""
    return build_tokenizer("gpt2")


@pytest.fixture(scope="session", params=["smollm2", "qwen2"])
def chat_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """The families with a chat template."""
    return build_tokenizer(request.param)

"""Build the folder of the embedded model: config and tokenizer, no weights.

Run ``python -m reft_pl.data.stories.make_tokenizer --out configs/models/tiny_llama``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jsonargparse import auto_cli
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from reft_pl.data.stories.generator import make_problem

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"

# Alternatives, in order: a line break with its indent, except for the last space if a word follows; a word with the space
# before it; a part of a snake_case name; a digit; punctuation; whitespace. A word keeps its space so that a name is the same
# token at the start of a line and within it. Single digits avoid number tokens that are rare in training.
PIECES = r"\n *(?= [A-Za-z])|\n *| ?[A-Za-z]+|_[a-z]+| ?\d| ?[^\sA-Za-z0-9_]+|\s+"


def texts(problems: int) -> Iterator[str]:
    """Yield the first ``problems`` problems of the training split as training text."""
    for index in range(problems):
        problem = make_problem("train", index)
        yield f"Question:\n{problem.question}\nAnswer reasoning:\n{problem.solution}"


def train_tokenizer(vocabulary: int, problems: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer in which each word of the stories and each digit is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(problems), trainer)
    return tokenizer


def main(out: Path, vocabulary: int = 1536, problems: int = 10_000) -> None:
    """Write ``config.json`` and the tokenizer files.

    Args:
        out: Output folder, created if missing.
        vocabulary: Vocabulary size, including special tokens and the 256 bytes.
        problems: Number of story problems to train the tokenizer on.
    """
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=train_tokenizer(vocabulary, problems), pad_token=PAD, bos_token=BOS, eos_token=EOS
    )
    tokenizer.save_pretrained(out)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.06,  # the usual 0.02 suits wider models
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.save_pretrained(out)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)

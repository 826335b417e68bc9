"""Convert problems to token ids (sampling prompts, training examples) and token ids back to responses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from reft_pl.data.chat_rendering import ChatRenderer
from reft_pl.data.vocabulary import Vocabulary
from reft_pl.errors import UserError
from reft_pl.formats.base import CoTFormat
from reft_pl.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reft_pl.data.cache import TokenCache


@dataclass(frozen=True, slots=True)
class Example:
    """A token sequence; its first ``prompt_length`` ids (at least 1) are the input.

    A training sequence is input, target and EOS; the loss covers everything after the input, given lines included. A sampling
    prompt is the input and the stable tokens of the given lines.
    """

    ids: tuple[int, ...]
    prompt_length: int


# Continuations of the given lines: one for each character class that pre-tokenizers distinguish, and longer runs of
# whitespace, which may merge with the newline at the end of the given lines.
_CONTINUATIONS = (
    "", "x", "    x", "\n", "\n    x", "\n\n", "\n\n\n\n", " ", "  ", "        x", "\t", "\r\n", "1", ".", '"""', "\u0301",
)  # fmt: skip


_PROBE = Problem("probe", "How many?", None)


class Codec:
    """Turns problems into token ids with one tokenizer and one format.

    **Prefix rule.** A sampling prompt is the input and the *stable* tokens of the given lines: no continuation changes them. To
    find them, the codec tokenises the given lines with many continuations and keeps the longest common prefix. The problem's
    annotated solution, if any, is one of the continuations, so the prompt is a prefix of the training tokens for every
    tokenizer by construction. For questions without solutions, the other continuations suffice because of how byte-level BPE
    and similar tokenizers work. They first split text from left to right into pieces, by character class, and merges never
    cross a piece. A continuation can therefore change only the last piece of the given lines. That piece ends in a newline and
    can grow only by whitespace and marks, and the continuations include every kind of these.

    Args:
        tokenizer: A fast tokenizer with an EOS token.
        format: How problems and solutions are written as text.
        max_prompt_tokens: Longest sampling prompt, in tokens. A longer one is an error, never truncated.
        max_tokens: Longest sequence, in tokens, EOS included.
        add_bos: Start inputs with BOS if the tokenizer does so by default. The paper trains its models without BOS.
        stop_ids: Token ids that end a response, besides the tokenizer's EOS (``load_stop_ids``). Ids outside the tokenizer's
            vocabulary are ignored.

    Raises:
        UserError: the tokenizer has no EOS token, or lacks a chat template that the format needs.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        format: CoTFormat,  # noqa: A002 (the name that configs use)
        max_prompt_tokens: int = 300,
        max_tokens: int = 700,
        add_bos: bool = True,
        stop_ids: Iterable[int] = (),
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer {_name(tokenizer)} has no EOS token, so responses could not end; set its eos_token")
        if format.uses_chat_template and not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer {_name(tokenizer)} has no chat template; use an instruct model or set another data.format"
            )
        if not 0 < max_prompt_tokens < max_tokens:
            raise UserError(f"max_prompt_tokens={max_prompt_tokens} must be positive and less than max_tokens={max_tokens}")
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary(tokenizer)
        self.format = format
        self.max_prompt_tokens = max_prompt_tokens
        self.max_tokens = max_tokens
        self.add_bos = add_bos
        self._chat = ChatRenderer(tokenizer) if format.uses_chat_template else None
        self._declared_stop_ids = tuple(stop_ids)
        self._bos_ids = _bos_ids(tokenizer) if add_bos else []
        self._prompts: dict[Problem, Example] = {}
        self._examples: dict[Problem, Example] = {}

    def description(self) -> dict[str, Any]:
        """Return the settings that determine this codec's prompts, JSON-serialisable: format, limits, BOS."""
        return {
            "format": self.format.settings(),
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_tokens": self.max_tokens,
            "add_bos": self.add_bos,
        }

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a training target: the chat template's end of turn if it has one, else the tokenizer's EOS."""
        end_of_turn = self._chat.end_of_turn() if self._chat else None
        return int(self.tokenizer.eos_token_id) if end_of_turn is None else end_of_turn

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """All token ids that end a response, ``eos_id`` first."""
        declared = (token_id for token_id in self._declared_stop_ids if token_id in self.vocabulary.ids)
        return tuple(dict.fromkeys([self.eos_id, int(self.tokenizer.eos_token_id), *declared]))

    @property
    def pad_id(self) -> int:
        """The padding token: the tokenizer's pad token, else EOS. Masks never depend on ids, so either works."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def check_embeddings(self, rows: int, source: str) -> None:
        """Check that a model with embeddings for ``rows`` ids covers every token that this codec can produce.

        Raises:
            UserError: a token has no embedding.
        """
        (prompt,) = self._encode_inputs([self._input_text(_PROBE)])  # includes the chat template's special tokens
        self.vocabulary.check_embeddings(rows, source, {self.pad_id, *prompt, *self.stop_ids})

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """Return the token ids of the sampling prompt.

        Raises:
            UserError: the prompt is longer than ``max_prompt_tokens``.
        """
        ids = self.prompts([problem])[0].ids
        if len(ids) > self.max_prompt_tokens:
            raise UserError(
                f"the question {problem.id} takes {len(ids)} tokens, more than max_prompt_tokens={self.max_prompt_tokens}; "
                "raise the limit, or drop such questions with data.on_too_long=drop"
            )
        return ids

    def prompt_text(self, problem: Problem) -> str:
        """Return the sampling prompt as text, with all given lines; the prompt's tokens may end earlier (prefix rule)."""
        return self._input_text(problem) + self.format.given_text(problem)

    def example(self, problem: Problem) -> Example:
        """Return the training sequence.

        Raises:
            UserError: the sequence is longer than ``max_tokens``, or the problem has no annotated solution in this format.
        """
        example = self.examples([problem])[0]
        if len(example.ids) > self.max_tokens:
            raise UserError(
                f"the annotated solution of {problem.id} makes {len(example.ids)} tokens, more than max_tokens="
                f"{self.max_tokens}; raise the limit, or drop such examples with data.on_too_long=drop"
            )
        return example

    def joint_ids(self, problem: Problem, solutions: Sequence[str]) -> list[list[int]]:
        """Return the reranker's input for each solution: question and solution tokenised as one text, without EOS.

        Longer texts are truncated to ``max_tokens``, as in the authors' scripts: solutions of that length are rarely correct.
        """
        text = self._input_text(problem)
        return [ids[: self.max_tokens] for ids in self._encode_inputs([text + solution for solution in solutions])]

    def response_text(self, problem: Problem, token_ids: Sequence[int]) -> str:
        """Decode a whole response, given lines included, up to the first stop id.

        Args:
            problem: The problem that the response answers.
            token_ids: The sampled tokens, without the prompt.
        """
        # Unstable tokens of the given lines are sampled, so decode from the end of the input.
        prompt = self.prompts([problem])[0]
        ids = [*prompt.ids[prompt.prompt_length :], *token_ids]
        end = next((i for i, token_id in enumerate(token_ids) if token_id in self.stop_ids), len(token_ids))
        ids = ids[: len(ids) - len(token_ids) + end]
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def prompts(self, problems: Sequence[Problem]) -> list[Example]:
        """Return sampling prompts without a length check; the given lines start at ``prompt_length``."""
        new = [p for p in dict.fromkeys(problems) if p not in self._prompts]
        if new:
            inputs = [self._input_text(p) for p in new]
            given = [self.format.given_text(p) for p in new]
            targets = [self._annotated(p) if text else None for p, text in zip(new, given, strict=True)]
            self._prompts.update(zip(new, self._make_prompts(inputs, given, targets), strict=True))
        return [self._prompts[p] for p in problems]

    def longest_prompts(self, problems: Sequence[Problem], cache: TokenCache | None = None) -> list[int]:
        """Return an upper bound on each sampling prompt's length: all tokens of the given lines, stable or not.

        Finding the stable tokens takes many times as long, and matters only for the few prompts near the limit.
        """
        inputs = [self._input_text(p) for p in problems]
        given = [self.format.given_text(p) for p in problems]

        def make() -> list[Example]:
            pairs = zip(self._encode_inputs(inputs), self._encode(given), strict=True)
            return [Example((*ids, *lines), len(ids)) for ids, lines in pairs]

        key = self._key("longest-prompts", inputs, given)
        return [len(whole.ids) for whole in (cache.get(key, make) if cache else make())]

    def examples(self, problems: Sequence[Problem], cache: TokenCache | None = None) -> list[Example]:
        """Return training sequences without a length check."""
        new = [p for p in dict.fromkeys(problems) if p not in self._examples]
        if new:
            inputs = [self._input_text(p) for p in new]
            targets = [self.format.target_text(p) for p in new]
            make = partial(self._make_examples, inputs, targets)
            key = self._key("examples", inputs, targets)
            self._examples.update(zip(new, cache.get(key, make) if cache else make(), strict=True))
        return [self._examples[p] for p in problems]

    def _make_prompts(self, inputs: list[str], given: list[str], targets: list[str | None]) -> list[Example]:
        prompts = []
        for ids, text, target in zip(self._encode_inputs(inputs), given, targets, strict=True):
            stable: Sequence[int] = ()
            if text:
                follows = [text + continuation for continuation in _CONTINUATIONS]
                stable = _common_prefix(self._encode(follows if target is None else [*follows, target]))
            prompts.append(Example((*ids, *stable), len(ids)))
        return prompts

    def _make_examples(self, inputs: list[str], targets: list[str]) -> list[Example]:
        pairs = zip(self._encode_inputs(inputs), self._encode(targets), strict=True)
        return [Example((*ids, *target, self.eos_id), len(ids)) for ids, target in pairs]

    def _input_text(self, problem: Problem) -> str:
        return self.format.input_text(problem, self._chat.render if self._chat else None)

    def _annotated(self, problem: Problem) -> str | None:
        """Return the problem's target; None without a usable solution, which sampling does not need."""
        try:
            return self.format.target_text(problem)
        except UserError:
            return None

    def _encode_inputs(self, texts: list[str]) -> list[list[int]]:
        """Tokenise inputs, with exactly one BOS at the start if enabled (a chat template may already write it)."""
        bos = self._bos_ids
        encoded = self._encode_chats(self._chat, texts) if self._chat else self._encode(texts)
        return [ids if bos and ids[: len(bos)] == bos else [*bos, *ids] for ids in encoded]

    def _encode_chats(self, chat: ChatRenderer, texts: list[str]) -> list[list[int]]:
        """Tokenise rendered chats. Only the template's own text may contain special tokens; messages are plain text."""
        pieces = [chat.pieces(text) for text in texts]
        ids = {
            by_template: iter(self._encode([p for ps in pieces for p, by in ps if by is by_template], special=by_template))
            for by_template in (True, False)
        }
        return [[token for _, by_template in ps for token in next(ids[by_template])] for ps in pieces]

    def _encode(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        """Tokenise texts without BOS or EOS. Unless ``special``, a special token in the text is plain text."""
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=not special, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _key(self, kind: str, *texts: Sequence[str | None]) -> str:
        """Return a digest of everything that determines the token ids."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        digest = sha256(vocabulary.encode())
        digest.update(json.dumps([kind, self.eos_id, self._bos_ids, texts]).encode())
        return f"{kind}-{digest.hexdigest()[:40]}"


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    """Return the longest common prefix of the sequences."""
    columns = zip(*sequences, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what the tokenizer puts before a text by default: the BOS token, or ``[]``."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return list(full[: next(starts, 0)])


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.name_or_path or type(tokenizer).__name__

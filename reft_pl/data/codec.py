"""Between problems and token ids: sampling prompts, training examples, and responses read back."""

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
    """A token sequence that begins with an input: ``prompt_length``, at least 1, says how many of the ``ids`` belong to it.

    A training sequence is input, target and EOS, with the loss on everything after the input, given lines included. A sampling
    prompt is the input and the stable tokens of the given lines.
    """

    ids: tuple[int, ...]
    prompt_length: int


# What may follow the given lines, one of every class of character that pre-tokenizers tell apart, and growing runs of
# whitespace, with which the newline at the end of the given lines may join.
_CONTINUATIONS = (
    "", "x", "    x", "\n", "\n    x", "\n\n", "\n\n\n\n", " ", "  ", "        x", "\t", "\r\n", "1", ".", '"""', "\u0301",
)  # fmt: skip


_PROBE = Problem("probe", "How many?", None)


class Codec:
    """Turns problems into token ids with one tokenizer and one form.

    **Prefix rule.** A sampling prompt is the input and the *stable* tokens of the given lines: those that every continuation
    leaves as they are. They are found by tokenising the given lines with many continuations, the problem's own annotated
    solution among them where it has one, and keeping the longest common prefix. That the annotated solution takes part makes
    the prompt a prefix of the training tokens for any tokenizer by construction. That the other continuations are enough for
    questions without solutions follows from how byte-level BPE and its relatives work: text is first split into pieces from
    left to right, by the class of the characters, and merges never leave a piece. So what follows can reach only the last
    piece of the given lines. It ends in a newline and can grow by nothing but whitespace and marks, and the continuations
    have every kind of these.

    Args:
        tokenizer: a fast tokenizer with an EOS token.
        format: how problems are put to the model.
        max_prompt_tokens: longest sampling prompt. A longer one is refused, never cut.
        max_tokens: longest sequence in all, EOS included.
        add_bos: begin inputs with BOS where the tokenizer's own convention does. The paper's models were trained without.
        stop_ids: token ids that end a response beside the tokenizer's EOS (``load_stop_ids``). Ids that the tokenizer does
            not have are left out.

    Raises:
        UserError: the tokenizer has no EOS token, or no chat template where the form wants one.
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
            raise UserError(f"the tokenizer {_name(tokenizer)} has no EOS token, so no response could end; set its eos_token")
        if format.uses_chat_template and not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer {_name(tokenizer)} has no chat template; choose an instruct model or another data.format"
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
        """How this codec puts problems to a model, JSON-serialisable: the form with its settings, limits, BOS or none."""
        return {
            "format": self.format.settings(),
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_tokens": self.max_tokens,
            "add_bos": self.add_bos,
        }

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a training target: in a chat its template's end of turn, else the tokenizer's EOS."""
        end_of_turn = self._chat.end_of_turn() if self._chat else None
        return int(self.tokenizer.eos_token_id) if end_of_turn is None else end_of_turn

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a response, ``eos_id`` first."""
        declared = (token_id for token_id in self._declared_stop_ids if token_id in self.vocabulary.ids)
        return tuple(dict.fromkeys([self.eos_id, int(self.tokenizer.eos_token_id), *declared]))

    @property
    def pad_id(self) -> int:
        """What fills a batch: the pad token, or EOS where there is none. Masks never come from ids, so either will do."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def check_embeddings(self, rows: int, source: str) -> None:
        """Check that a model with embeddings for ``rows`` ids can read everything that this codec writes.

        Raises:
            UserError: a token has no embedding.
        """
        (prompt,) = self._encode_inputs([self._input_text(_PROBE)])  # a chat template writes special tokens
        self.vocabulary.check_embeddings(rows, source, {self.pad_id, *prompt, *self.stop_ids})

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The sampling prompt.

        Raises:
            UserError: it is longer than ``max_prompt_tokens``.
        """
        ids = self.prompts([problem])[0].ids
        if len(ids) > self.max_prompt_tokens:
            raise UserError(
                f"the question {problem.id} takes {len(ids)} tokens, more than max_prompt_tokens={self.max_prompt_tokens}; "
                "raise the limit, or leave such questions out with data.on_too_long=drop"
            )
        return ids

    def prompt_text(self, problem: Problem) -> str:
        """The text of the sampling prompt, whole given lines included (for people: the prompt ends where tokens are stable)."""
        return self._input_text(problem) + self.format.given_text(problem)

    def example(self, problem: Problem) -> Example:
        """The training sequence.

        Raises:
            UserError: it is longer than ``max_tokens``, or the problem has no annotated solution of this form.
        """
        example = self.examples([problem])[0]
        if len(example.ids) > self.max_tokens:
            raise UserError(
                f"the annotated solution of {problem.id} makes {len(example.ids)} tokens, more than max_tokens="
                f"{self.max_tokens}; raise the limit, or leave such examples out with data.on_too_long=drop"
            )
        return example

    def joint_ids(self, problem: Problem, solutions: Sequence[str]) -> list[list[int]]:
        """Question and whole solution as one text, tokenised together and without EOS, for the reranker.

        What is longer than ``max_tokens`` is cut there, as by the authors: a solution so long is rarely right.
        """
        text = self._input_text(problem)
        return [ids[: self.max_tokens] for ids in self._encode_inputs([text + solution for solution in solutions])]

    def response_text(self, problem: Problem, token_ids: Sequence[int]) -> str:
        """The whole response, given lines included, without the first stop id and what follows it.

        Args:
            problem: what the response is to.
            token_ids: the sampled tokens, from the end of the prompt on.
        """
        # Tokens of the given lines that are not in the prompt were sampled, so the text is decoded from the end of the input.
        prompt = self.prompts([problem])[0]
        ids = [*prompt.ids[prompt.prompt_length :], *token_ids]
        end = next((i for i, token_id in enumerate(token_ids) if token_id in self.stop_ids), len(token_ids))
        ids = ids[: len(ids) - len(token_ids) + end]
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def prompts(self, problems: Sequence[Problem]) -> list[Example]:
        """Sampling prompts of any length; ``prompt_length`` says where the input ends and the given lines begin."""
        new = [p for p in dict.fromkeys(problems) if p not in self._prompts]
        if new:
            inputs = [self._input_text(p) for p in new]
            given = [self.format.given_text(p) for p in new]
            targets = [self._annotated(p) if text else None for p, text in zip(new, given, strict=True)]
            self._prompts.update(zip(new, self._make_prompts(inputs, given, targets), strict=True))
        return [self._prompts[p] for p in problems]

    def longest_prompts(self, problems: Sequence[Problem], cache: TokenCache | None = None) -> list[int]:
        """Lengths that the sampling prompts do not exceed: with all tokens of the given lines, stable or not.

        To know which tokens are stable takes many times as long, and few prompts are so near to a limit that it matters.
        """
        inputs = [self._input_text(p) for p in problems]
        given = [self.format.given_text(p) for p in problems]

        def make() -> list[Example]:
            pairs = zip(self._encode_inputs(inputs), self._encode(given), strict=True)
            return [Example((*ids, *lines), len(ids)) for ids, lines in pairs]

        key = self._key("longest-prompts", inputs, given)
        return [len(whole.ids) for whole in (cache.get(key, make) if cache else make())]

    def examples(self, problems: Sequence[Problem], cache: TokenCache | None = None) -> list[Example]:
        """Training sequences of any length."""
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
        """The problem's target where it has a usable one: sampling does not need solutions."""
        try:
            return self.format.target_text(problem)
        except UserError:
            return None

    def _encode_inputs(self, texts: list[str]) -> list[list[int]]:
        """Inputs with the tokenizer's BOS, where it is wanted and usual, once at the start (a chat template may write it)."""
        bos = self._bos_ids
        encoded = self._encode_chats(self._chat, texts) if self._chat else self._encode(texts)
        return [ids if bos and ids[: len(bos)] == bos else [*bos, *ids] for ids in encoded]

    def _encode_chats(self, chat: ChatRenderer, texts: list[str]) -> list[list[int]]:
        """Token ids of rendered chats. Special tokens are recognised in what the template wrote, not in the messages."""
        pieces = [chat.pieces(text) for text in texts]
        ids = {
            by_template: iter(self._encode([p for ps in pieces for p, by in ps if by is by_template], special=by_template))
            for by_template in (True, False)
        }
        return [[token for _, by_template in ps for token in next(ids[by_template])] for ps in pieces]

    def _encode(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        """Token ids without BOS or EOS. A special token's name in a text is plain text, unless ``special``."""
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=not special, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _key(self, kind: str, *texts: Sequence[str | None]) -> str:
        """A digest of everything that the token ids depend on."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        digest = sha256(vocabulary.encode())
        digest.update(json.dumps([kind, self.eos_id, self._bos_ids, texts]).encode())
        return f"{kind}-{digest.hexdigest()[:40]}"


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    """What all sequences begin with."""
    columns = zip(*sequences, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text: ``[]``, or the BOS token."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return list(full[: next(starts, 0)])


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.name_or_path or type(tokenizer).__name__

"""Render chat messages so that only the chat template, not a message, can produce special tokens.

A question may contain ``<|im_end|>``. If the tokenizer recognised it in the rendered chat, it would end the user's turn. If any
message contains a special token, the contents of all messages are therefore marked in the rendered text and tokenised
separately, as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reft_pl.data.template_process import TemplateFailedError, render
from reft_pl.errors import UserError
from reft_pl.escapes import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGIN, END = "\ufdd0", "\ufdd1"
"""Markers around a message's content. Unicode reserves them as noncharacters, so replacing them in a message is harmless."""

_PROBE = "2718281828"
"""Message content that no template alters, to test whether a template renders it."""

_QUESTION_PROBE = "3141592653"

_CONTENT = re.compile(f"{BEGIN}(.*?){END}", re.DOTALL)


class ChatRenderer:
    """Renders messages with a tokenizer's chat template, and splits the rendered text for tokenisation.

    The template comes with the model, so it runs in a process with resource limits (``template_process``).

    Args:
        tokenizer: A tokenizer with a chat template.

    Raises:
        UserError: the tokenizer has several templates and no default, or its template is not text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._name = repr(str(tokenizer.name_or_path or type(tokenizer).__name__))
        self._template_text = self._chosen()
        self._in_parts: bool | None = None  # whether the template takes contents as lists of parts; detected on first use
        tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._normalize: Callable[[str], str] = normalizer.normalize_str if normalizer else str

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Render messages as text, with the generation prompt; mark all contents if any contains a special token.

        Raises:
            UserError: the template fails, omits the question, exceeds a limit, or alters a message with a special token, so
                that message and template text cannot be separated.
        """
        contents = [message["content"].replace(BEGIN, "\ufffd").replace(END, "\ufffd") for message in messages]
        text = self._template(messages, contents)
        held = next((found for found in map(self._held, contents) if found), None)
        if held is None:
            return text
        frame = self._template(messages, [f"{BEGIN}{i}{END}" for i in range(len(contents))])
        for written in (contents, [content.strip() for content in contents]):  # many templates strip
            marked = _CONTENT.sub(lambda place, written=written: BEGIN + written[int(place[1])] + END, frame)  # type: ignore[misc]
            if marked.replace(BEGIN, "").replace(END, "") == text:
                return marked
        raise UserError(
            f"a message contains the special token {held!r}, and the chat template alters messages, so it cannot be separated "
            f"from the template's own tokens: remove the question {contents[-1][:40]!r}"
        )

    def end_of_turn(self) -> int | None:
        """Return the id of the token that the template writes after an answer, such as ``<|im_end|>``.

        None if the template writes no token there, or fails on an assistant message.
        """
        messages = [{"role": "user"}, {"role": "assistant"}]
        for in_parts in (False, True):
            with suppress(UserError):
                text = self._rendered(messages, [_QUESTION_PROBE, _PROBE], in_parts, add_generation_prompt=False)
                _, found, rest = text.rpartition(_PROBE)
                if found:
                    return self._first_token(rest.lstrip())
        return None

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """Split a rendered text into parts, each flagged as the template's or not; one part if nothing is marked."""
        parts = _CONTENT.split(text)
        return [(part, i % 2 == 0) for i, part in enumerate(parts) if part]

    def _chosen(self) -> str:
        try:
            template = self.tokenizer.get_chat_template()
        except ValueError:
            names = ", ".join(map(repr, self.tokenizer.chat_template))
            raise UserError(
                f"the tokenizer {self._name} has several chat templates ({names}) and none is named 'default': "
                "rename one to 'default', or set another data.format"
            ) from None
        if not isinstance(template, str):
            raise UserError(f"the chat template of {self._name} is {template!r:.40}, not text: repair it or remove it")
        return template

    def _template(self, messages: Sequence[dict[str, str]], contents: Sequence[str]) -> str:
        if self._in_parts is None:
            self._in_parts = self._wants_parts(messages)
        return self._rendered(messages, contents, self._in_parts)

    def _wants_parts(self, messages: Sequence[dict[str, str]]) -> bool:
        """Whether the template renders contents only as lists of parts, as templates of vision-language models do."""
        probes = [_PROBE] * len(messages)
        try:
            if _PROBE in self._rendered(messages, probes, in_parts=False):
                return False
            failure = UserError(f"the chat template of {self._name} omits the question: repair it or set another data.format")
        except _TemplateError as error:
            failure = error
        with suppress(_TemplateError):
            if _PROBE in self._rendered(messages, probes, in_parts=True):
                return True
        raise failure

    def _rendered(
        self,
        messages: Sequence[dict[str, str]],
        contents: Sequence[str],
        in_parts: bool,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        filled: list[dict[str, Any]] = [
            {**message, "content": [{"type": "text", "text": content}] if in_parts else content}
            for message, content in zip(messages, contents, strict=True)
        ]
        try:
            text = render(
                self._name,
                self._template_text,
                filled,
                self.tokenizer.special_tokens_map,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateFailedError as error:
            refusable = any(message["role"] == "system" for message in messages) and "TemplateSyntaxError" not in str(error)
            advice = "remove data.format.system" if refusable else "repair it"
            raise _TemplateError(
                f"the chat template of {self._name} fails ({one_line(str(error))}): {advice} or set another data.format"
            ) from None

        if not _is_text(text) and all(map(_is_text, contents)):
            raise _TemplateError(
                f"the chat template of {self._name} writes a lone surrogate, which is not Unicode text: repair it, or set "
                "another data.format"
            )
        return text

    def _first_token(self, text: str) -> int | None:
        """Return the id of the added token at the start of a text, or None."""
        added = {token.content: token_id for token_id, token in self.tokenizer.added_tokens_decoder.items()}
        found = [content for content in added if content.strip() and text.startswith(content)]
        return added[max(found, key=len)] if found else None

    def _held(self, content: str) -> str | None:
        found = self._special.search(content) or self._special.search(self._normalize(content))
        return found[0] if found else None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _TemplateError(UserError):
    """The template itself failed, so it may expect contents in the other form (text or parts)."""

"""Chat messages as text in which special tokens count only where the template wrote them.

A question may hold ``<|im_end|>``. Rendered by a chat template and recognised, it would end the user's turn. Where a content
holds a special token, the contents are therefore marked in the rendered text, and tokenised as plain text by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reft_pl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGIN, END = "\ufdd0", "\ufdd1"
"""Around a content. They are no characters in Unicode's sense, so a text that has them itself loses nothing by U+FFFD."""

_CONTENT = re.compile(f"{BEGIN}(.*?){END}", re.DOTALL)


class ChatRenderer:
    """Renders messages by a tokenizer's chat template, and splits what it rendered for tokenising.

    Args:
        tokenizer: one with a chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._normalize: Callable[[str], str] = normalizer.normalize_str if normalizer else str

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The messages as text, generation prompt included; contents are marked if one of them holds a special token.

        Raises:
            UserError: one does, and the template changes the contents, so that they cannot be told from its own text.
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
            f"a message holds the special token {held!r}, and the chat template changes messages, so that it cannot be told "
            f"from the template's own: leave out the question {contents[-1][:40]!r}"
        )

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """The parts of a rendered text in order, each with whether the template wrote it; one part where nothing is marked."""
        parts = _CONTENT.split(text)
        return [(part, i % 2 == 0) for i, part in enumerate(parts) if part]

    def _template(self, messages: Sequence[dict[str, str]], contents: Sequence[str]) -> str:
        filled = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
        text = self.tokenizer.apply_chat_template(filled, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    def _held(self, content: str) -> str | None:
        found = self._special.search(content) or self._special.search(self._normalize(content))
        return found[0] if found else None

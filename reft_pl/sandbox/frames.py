"""What crosses the process boundaries of the sandboxes: length-prefixed frames of a tag and a number or a letter.

No more than the standard library and ``reft_pl.choices``: worker processes import it without the rest of the package. Nothing
here is pickle, JSON or ``eval``: a body is a tag byte and then eight bytes of a double, one letter, or a short text for people.
A process that has gone over to the enemy can at worst claim an answer, which the program could have returned anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from reft_pl.choices import CHOICES

STATUSES = (
    "ok",
    "wrong_type",
    "non_numeric",
    "non_finite",
    "too_large",
    "no_solution",
    "syntax_error",
    "exception",
    "memory",
    "timeout",
    "killed",
    "died",
    "no_result",
    "bad_frame",
    "output_too_large",
    "worker_died",
    "unsupported",
)
"""The values of ``reft_pl.types.Status`` in the order of their tags (a test holds the two together)."""

MAX_BODY_BYTES = 256
"""No honest result is longer; texts for people are cut to fit."""

READY = "ready"
"""What a worker says (as the detail of a reply) before its first program; anything else is the reason why it will not serve."""

_LENGTH = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")
_NUMBER_TAG, _CHOICE_TAG = 200, 201


class FrameError(Exception):
    """The bytes are not a frame that this package writes."""


def encode_source(source: str) -> bytes:
    """Bytes of a program, lone surrogates kept (the compiler shall refuse them, not we)."""
    return source.encode("utf-8", "surrogatepass")


def decode_source(data: bytes) -> str:
    """Inverse of ``encode_source``."""
    return data.decode("utf-8", "surrogatepass")


def encode_number(value: float) -> bytes:
    """Body of an ``ok`` result that is a number."""
    return bytes((_NUMBER_TAG,)) + _DOUBLE.pack(value)


def encode_choice(letter: str) -> bytes:
    """Body of an ``ok`` result that is the letter of a choice."""
    return bytes((_CHOICE_TAG,)) + letter.encode("ascii")


def encode_failure(status: str, detail: str = "") -> bytes:
    """Body of a result without a value; ``detail`` is one line for people."""
    return bytes((STATUSES.index(status),)) + detail.encode("utf-8", "replace")[: MAX_BODY_BYTES - 1]


def decode_body(body: bytes) -> tuple[str, float | str | None, str]:
    """Return ``(status, value, detail)``.

    Raises:
        FrameError: the bytes are no body, or claim an answer that is not finite or not a choice.
    """
    if not body or len(body) > MAX_BODY_BYTES:
        raise FrameError(f"a body has 1 to {MAX_BODY_BYTES} bytes, not {len(body)}")
    tag, payload = body[0], body[1:]
    if tag == _NUMBER_TAG and len(payload) == _DOUBLE.size:
        (number,) = _DOUBLE.unpack(payload)
        if number - number == 0:
            return "ok", number, ""
    elif tag == _CHOICE_TAG and len(payload) == 1 and payload in CHOICES.encode("ascii"):
        return "ok", payload.decode("ascii"), ""
    elif 0 < tag < len(STATUSES):
        return STATUSES[tag], None, payload.decode("utf-8", "replace")
    raise FrameError("the body's tag and length do not fit together")


def pack(body: bytes) -> bytes:
    """Put the length before a body."""
    return _LENGTH.pack(len(body)) + body


def pack_reply(body: bytes, seconds: float) -> bytes:
    """Frame of a worker's answer to the trainer: how long the program ran, and the body."""
    return pack(_DOUBLE.pack(seconds) + body)


def unpack_reply(frame: bytes) -> tuple[str, float | str | None, str, float]:
    """Return ``(status, value, detail, seconds)`` of a ``pack_reply`` frame whose length is already taken off.

    Raises:
        FrameError: the bytes are no such frame.
    """
    if len(frame) < _DOUBLE.size:
        raise FrameError(f"a reply of {len(frame)} bytes")
    status, value, detail = decode_body(frame[_DOUBLE.size :])
    return status, value, detail, _DOUBLE.unpack_from(frame)[0]


def read_frame(receive: Callable[[int], bytes], limit: int) -> bytes | None:
    """Read one frame with ``receive(n)`` (at most n bytes, none at the end); None when the other side has gone.

    Raises:
        FrameError: the frame announces more than ``limit`` bytes.
    """
    head = _read_exactly(receive, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > limit:
        raise FrameError(f"a frame of {length} bytes, at most {limit} were expected")
    return _read_exactly(receive, length)


def _read_exactly(receive: Callable[[int], bytes], count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = receive(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

"""The wire format between the trainer and the sandbox's processes, and how the trainer validates results.

Imports only the standard library and ``reft_pl.choices``, because worker processes load it without the rest of the package. No
pickle, JSON or ``eval``. A program's process writes at most one body into its result pipe: a tag byte, then the eight bytes of
a double, one letter, or a short message. ``COMPILED`` precedes the body once the program has compiled.

A program shares its process with the code that reports its result, so it can forge a body. ``judge`` therefore accepts only
what an honest program could also produce: an answer that it could return, or a failure that it could cause. Every other status
(timeout, killed, died, unsupported, ...) comes from outside the process.
"""

from __future__ import annotations

import os
import signal
import struct

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
"""The values of ``reft_pl.types.Status``, in tag order (a test keeps the two equal)."""

MAX_BODY_BYTES = 256
"""Longest valid body, in bytes; messages are truncated to fit."""

MAX_RESULT_BYTES = 1 + MAX_BODY_BYTES
"""``COMPILED`` and a body."""

COMPILED = b"\xc0"
"""Precedes the body once the program has compiled: from then on the process runs the program's code."""

LENGTH = struct.Struct("<I")
"""Precedes a program on the shared child's socket: the program's length in bytes."""

GREETING_BYTES = 256
"""Length of a worker's first message, in bytes: the reason it cannot serve, zero-padded, or all zeros if it can."""

NOT_STARTED = -1
"""Sentinel wait status: the program's process could not be forked."""

ENDED = struct.Struct("<?id")
"""A worker's report of how a program's process ended: past its deadline, wait status, wall time in seconds."""

Result = tuple[str, "float | str | None", str]
"""``(status, value, detail)``; ``value`` is set only for ``ok``, ``detail`` is a one-line message."""

_DOUBLE = struct.Struct("<d")
_NUMBER_TAG, _CHOICE_TAG = 200, 201
_BEFORE_COMPILED = frozenset({"syntax_error", "memory", "unsupported"})
_AFTER_COMPILED = frozenset(
    {"ok", "wrong_type", "non_numeric", "non_finite", "too_large", "no_solution", "exception", "memory"}
)
DECIDED_WHEN_PLAIN = (_AFTER_COMPILED | {"syntax_error"}) - {"memory"}
"""Statuses that are final if the shared child reports them."""


class FrameError(Exception):
    """The bytes are not a valid body."""


def encode_source(source: str) -> bytes:
    """Encode a program. Lone surrogates pass through, so that the compiler rejects them and not the transport."""
    return source.encode("utf-8", "surrogatepass")


def decode_source(data: bytes) -> str:
    """Inverse of ``encode_source``."""
    return data.decode("utf-8", "surrogatepass")


def greeting(refusal: str = "") -> bytes:
    """Return a worker's first message; see ``GREETING_BYTES``."""
    return refusal.encode("utf-8", "replace")[:GREETING_BYTES].ljust(GREETING_BYTES, b"\0")


def encode_number(value: float) -> bytes:
    """Encode an ``ok`` result that is a number."""
    return bytes((_NUMBER_TAG,)) + _DOUBLE.pack(value)


def encode_choice(letter: str) -> bytes:
    """Encode an ``ok`` result that is a choice letter."""
    return bytes((_CHOICE_TAG,)) + letter.encode("ascii")


def encode_failure(status: str, detail: str = "") -> bytes:
    """Encode a result without a value; ``detail`` is a one-line message."""
    return bytes((STATUSES.index(status),)) + detail.encode("utf-8", "replace")[: MAX_BODY_BYTES - 1]


def decode_body(body: bytes) -> Result:
    """Decode a body.

    Raises:
        FrameError: the bytes are not a body, or their answer is not finite or not a choice.
    """
    if not body or len(body) > MAX_BODY_BYTES:
        raise FrameError(f"a body must have 1 to {MAX_BODY_BYTES} bytes, not {len(body)}")
    tag, payload = body[0], body[1:]
    if tag == _NUMBER_TAG and len(payload) == _DOUBLE.size:
        (number,) = _DOUBLE.unpack(payload)
        if number - number == 0:
            return "ok", number, ""
    elif tag == _CHOICE_TAG and len(payload) == 1 and payload in CHOICES.encode("ascii"):
        return "ok", payload.decode("ascii"), ""
    elif 0 < tag < len(STATUSES):
        return STATUSES[tag], None, payload.decode("utf-8", "replace")
    raise FrameError("the body's tag and payload do not match")


def judge(data: bytes, late: bool, wait_status: int) -> Result:  # noqa: PLR0911
    """Derive a program's result from what its process left behind.

    Args:
        data: What the process wrote to its result pipe, truncated after ``MAX_RESULT_BYTES + 1`` bytes.
        late: Whether the process was killed at its deadline.
        wait_status: The status that ``os.waitpid`` returned, or ``NOT_STARTED``.
    """
    if late:
        return "timeout", None, ""
    if wait_status == NOT_STARTED:
        return "worker_died", None, "the process could not be forked"
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        return "timeout" if number == signal.SIGXCPU else "killed", None, f"signal {number}"
    if code := os.WEXITSTATUS(wait_status):
        return "died", None, f"exit code {code}"
    if len(data) > MAX_RESULT_BYTES:
        return "output_too_large", None, ""
    compiled = data.startswith(COMPILED)
    body = data[len(COMPILED) :] if compiled else data
    if not body:
        return "no_result", None, ""
    try:
        result = decode_body(body)
    except FrameError as error:
        return "bad_frame", None, str(error)
    if result[0] not in (_AFTER_COMPILED if compiled else _BEFORE_COMPILED):
        return "bad_frame", None, f"a program must not report {result[0]!r} itself"
    return result

"""The bytes that cross the sandbox's process boundaries, and how the trainer judges them.

Imports the standard library and ``reft_pl.choices`` only: worker processes load it without the rest of the package. Nothing
here is pickle, JSON or ``eval``. A program's process leaves at most one body in its result pipe: a tag byte, then the eight
bytes of a double, one letter, or a short text for people. ``COMPILED`` precedes the body once the program has compiled.

A program shares its process with the code that reports its result, so it can write a body itself. ``judge`` therefore accepts
from a process only what a program can also bring about honestly: an answer that it could return, or a failure that it could
cause. Every other status (timeout, killed, died, unsupported, ...) comes from outside the process.
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
"""The values of ``reft_pl.types.Status`` in the order of their tags (a test keeps the two equal)."""

MAX_BODY_BYTES = 256
"""No honest body is longer; texts for people are cut to fit."""

MAX_RESULT_BYTES = 1 + MAX_BODY_BYTES
"""``COMPILED`` and a body."""

COMPILED = b"\xc0"
"""Precedes the body once the program has compiled: from then on the process runs code of the program's."""

LENGTH = struct.Struct("<I")
"""Precedes a program on the socket to the child that plain programs share: how many bytes it has."""

GREETING_BYTES = 256
"""Length of a worker's first message: why it will not serve, padded with zeros; all zeros if it will."""

NOT_STARTED = -1
"""Stands for the wait status of a program whose process could not be forked."""

ENDED = struct.Struct("<?id")
"""How a program's process ended, as its worker reports it: past its deadline, wait status, wall time in seconds."""

Result = tuple[str, "float | str | None", str]
"""``(status, value, detail)``; ``value`` is set exactly for ``ok``, ``detail`` is one line for people."""

_DOUBLE = struct.Struct("<d")
_NUMBER_TAG, _CHOICE_TAG = 200, 201
_BEFORE_COMPILED = frozenset({"syntax_error", "memory", "unsupported"})
_AFTER_COMPILED = frozenset(
    {"ok", "wrong_type", "non_numeric", "non_finite", "too_large", "no_solution", "exception", "memory"}
)
DECIDED_WHEN_PLAIN = (_AFTER_COMPILED | {"syntax_error"}) - {"memory"}
"""What counts of the word of a child that plain programs share."""


class FrameError(Exception):
    """The bytes are not a body that this package writes."""


def encode_source(source: str) -> bytes:
    """Encode a program. Lone surrogates survive: the compiler refuses them, not the transport."""
    return source.encode("utf-8", "surrogatepass")


def decode_source(data: bytes) -> str:
    """Inverse of ``encode_source``."""
    return data.decode("utf-8", "surrogatepass")


def greeting(refusal: str = "") -> bytes:
    """A worker's first message; see ``GREETING_BYTES``."""
    return refusal.encode("utf-8", "replace")[:GREETING_BYTES].ljust(GREETING_BYTES, b"\0")


def encode_number(value: float) -> bytes:
    """Body of an ``ok`` result that is a number."""
    return bytes((_NUMBER_TAG,)) + _DOUBLE.pack(value)


def encode_choice(letter: str) -> bytes:
    """Body of an ``ok`` result that is the letter of a choice."""
    return bytes((_CHOICE_TAG,)) + letter.encode("ascii")


def encode_failure(status: str, detail: str = "") -> bytes:
    """Body of a result without a value; ``detail`` is one line for people."""
    return bytes((STATUSES.index(status),)) + detail.encode("utf-8", "replace")[: MAX_BODY_BYTES - 1]


def decode_body(body: bytes) -> Result:
    """Read a body.

    Raises:
        FrameError: the bytes are not a body, or they claim an answer that is not finite or not a choice.
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


def judge(data: bytes, late: bool, wait_status: int) -> Result:  # noqa: PLR0911
    """Turn what a program's process left behind into its result.

    Args:
        data: What it wrote into its result pipe, cut after ``MAX_RESULT_BYTES + 1`` bytes.
        late: Whether it was killed at its deadline.
        wait_status: How it ended, as ``os.waitpid`` reports it, or ``NOT_STARTED``.
    """
    if late:
        return "timeout", None, ""
    if wait_status == NOT_STARTED:
        return "worker_died", None, "no process could be forked"
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
        return "bad_frame", None, f"a program cannot report {result[0]!r} itself"
    return result

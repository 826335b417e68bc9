"""The worker process that renders chat templates within memory and CPU time limits.

Messages in both directions are frames: a four-byte length, then the body. A request is JSON. A reply is a tag byte and UTF-8
text.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import sys
from typing import Any

LENGTH = struct.Struct("<I")
READY, TEXT, FAILED, TOO_LONG, NO_MEMORY, NO_TIME = b"R", b"T", b"F", b"L", b"M", b"S"
"""Reply tags: ready, rendered text, template failed, and the limits on length, memory and CPU time."""

MAX_REASON_CHARACTERS = 200


def main(memory_mb: int, cpu_seconds: float) -> None:
    """Answer requests on standard input, a socket, until the other side closes it.

    Args:
        memory_mb: Memory that renderings may allocate on top of the idle process, in MiB.
        cpu_seconds: CPU time limit of one rendering in seconds, template compilation included; SIGPROF then ends the process.
    """
    from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 (slow, and the parent imports this module)

    channel = socket.socket(fileno=0)
    _limit_memory(memory_mb)
    send(channel, READY)
    while (request := receive(channel)) is not None:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = _render(render_jinja_template, json.loads(request))
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(channel, reply)


def send(channel: socket.socket, body: bytes) -> None:
    """Send one frame."""
    channel.sendall(LENGTH.pack(len(body)) + body)


def receive(channel: socket.socket, limit: int | None = None) -> bytes | None:
    """Receive one frame; None if the other side has closed the socket.

    Raises:
        ValueError: the frame is longer than ``limit`` bytes.
    """
    head = _exactly(channel, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    if limit is not None and length > limit:
        raise ValueError(f"a frame of {length} bytes exceeds the limit of {limit}")
    return _exactly(channel, length)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = channel.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _render(render: Any, request: dict[str, Any]) -> bytes:
    try:
        texts, _ = render(
            conversations=[request["messages"]],
            chat_template=request["template"],
            add_generation_prompt=request["add_generation_prompt"],
            **request["variables"],
        )
        text: str = texts[0]
        if len(text) > request["max_characters"]:
            return TOO_LONG
        return TEXT + text.encode("utf-8", "surrogatepass")
    except MemoryError:
        return NO_MEMORY
    except Exception as error:  # a template may raise anything
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
        return FAILED + reason.encode("utf-8", "replace")


def _limit_memory(memory_mb: int) -> None:
    """Limit the address space. macOS does not enforce this limit; there, the CPU time limit bounds the output."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 (not on every platform)

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform.startswith("linux"):
            with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 (pathlib is another import)
                pages = int(file.read().split()[0])
            limit = pages * resource.getpagesize() + memory_mb * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

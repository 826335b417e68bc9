"""Render chat templates in a process with resource limits, since a template comes with a model and may be hostile.

Jinja's sandbox protects Python objects from a template, but does not bound its computation: repeated strings, format widths,
nested loops, constants that the compiler folds. Only process limits cover all of these.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from reft_pl.data import template_worker
from reft_pl.errors import UserError

MEMORY_MB, CPU_SECONDS, WALL_SECONDS = 256, 2.0, 30.0
"""Limits of one rendering, in MiB and seconds. An ordinary rendering takes less than a millisecond."""

START_SECONDS = 120.0
FIXED_CHARACTERS, TIMES_CONTENT = 2**17, 4
"""A rendering may have ``FIXED_CHARACTERS`` plus ``TIMES_CONTENT`` times the characters of the messages."""

_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "HOME", "TMPDIR", "TZ")


_lock = threading.Lock()
_running: _Running | None = None


def _after_fork() -> None:
    """Replace the lock: if another thread of the parent holds it, nothing would release it in the child."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class TemplateFailedError(Exception):
    """The template raised or cannot be compiled; the message quotes the exception."""


def render(
    name: str,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Render messages as text.

    One process serves all tokenizers. It starts with the first rendering, and restarts after a limit has ended it.

    Args:
        name: Name of the tokenizer, for errors.
        template: The tokenizer's chat template.
        messages: Messages with ``content`` as text or as a list of parts.
        variables: Template variables besides the messages: the special tokens by role.
        add_generation_prompt: Start the assistant's next turn.

    Raises:
        TemplateFailedError: the template raised or cannot be compiled.
        UserError: the rendering exceeds a limit.
    """
    written = sum(len(part) for message in messages for part in _texts(message["content"]))
    most = FIXED_CHARACTERS + TIMES_CONTENT * written
    request = {
        "messages": messages,
        "template": template,
        "variables": dict(variables),
        "add_generation_prompt": add_generation_prompt,
        "max_characters": most,
    }
    with _lock:
        reply = _ask(json.dumps(request, default=str).encode("ascii"), 4 * most + 1)
    tag, text = reply[:1], reply[1:]
    if tag == template_worker.TEXT:
        return text.decode("utf-8", "surrogatepass")
    if tag == template_worker.FAILED:
        raise TemplateFailedError(text.decode("utf-8", "replace"))
    excess = {
        template_worker.TOO_LONG: f"writes more than {most:,} characters for messages of {written:,}",
        template_worker.NO_MEMORY: f"needs more than {MEMORY_MB} MiB",
        template_worker.NO_TIME: f"takes more than {CPU_SECONDS:g} seconds",
    }.get(tag, "kills its process")
    raise UserError(f"rendering the chat template of {name} {excess}: use another model or set another data.format")


def _ask(request: bytes, limit: int) -> bytes:
    """Return the process's reply: only a tag if a limit ended the process, empty if anything else did."""
    global _running  # noqa: PLW0603 (one process for all)
    running = _running
    if running is None or running.owner != os.getpid():  # after a fork, the process is the parent's
        running = _running = _Running()
    try:
        reply = running.ask(request, limit, WALL_SECONDS)
        if reply is not None:
            return reply
    except TimeoutError:
        _running = None
        running.end()
        return template_worker.NO_TIME
    except (OSError, ValueError):
        pass
    _running = None
    return template_worker.NO_TIME if running.end() == -signal.SIGPROF else b""


class _Running:
    """A running worker process and the parent's end of its socket."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        paths = [path for path in sys.path if path]
        code = (
            f"import sys; sys.path[:] = {paths!r}; from reft_pl.data.template_worker import main; "
            f"main({MEMORY_MB}, {CPU_SECONDS})"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-c", code],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C must reach only the parent
                env={key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ} | {"OPENBLAS_NUM_THREADS": "1"},
            )
        self._finalizer = weakref.finalize(self, _end, self._process, self._socket, self.owner)
        try:
            ready = self._receive(1, START_SECONDS)
        except (OSError, ValueError):
            ready = None
        if ready != template_worker.READY:
            self.end()
            raise UserError("the process that renders chat templates does not start: reinstall reft-pl")

    def ask(self, request: bytes, limit: int, seconds: float) -> bytes | None:
        """Send a request and return a reply of at most ``limit`` bytes; None if the process has ended.

        Raises:
            TimeoutError: there is no reply after ``seconds``.
            OSError: the process has ended.
            ValueError: the reply is too long.
        """
        self._socket.settimeout(seconds)
        template_worker.send(self._socket, request)
        return self._receive(max(limit, 4 * template_worker.MAX_REASON_CHARACTERS + 1), seconds)

    def end(self) -> int | None:
        """Kill the process if it is running; return its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # if a limit ended it, return that exit code
        self._finalizer()
        return self._process.returncode

    def _receive(self, limit: int, seconds: float) -> bytes | None:
        self._socket.settimeout(seconds)
        return template_worker.receive(self._socket, limit)


def _end(process: subprocess.Popen[bytes], channel: socket.socket, owner: int) -> None:
    channel.close()
    if owner != os.getpid():
        process.returncode = 0  # not this process's child, so do not wait for it
        return
    process.kill()
    process.wait()


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]

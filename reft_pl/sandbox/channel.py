"""A worker process's end of its socket to the trainer. Standard library only."""

from __future__ import annotations

import fcntl
import os
import socket

from reft_pl.sandbox.frames import pack_reply, read_frame

MAX_SOURCE_BYTES = 1 << 28
"""Longest program that a worker takes in; a frame that announces more is a fault of ours."""


class Channel:
    """Reads programs and writes results. Takes the socket from standard input and leaves /dev/null on all standard streams."""

    def __init__(self) -> None:
        high = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64)  # out of the way of the few descriptors that a child keeps
        self._socket = socket.socket(fileno=high)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)

    def receive(self) -> bytes | None:
        """The next program, or None when the trainer has gone."""
        try:
            return read_frame(self._socket.recv, MAX_SOURCE_BYTES)
        except OSError:
            return None

    def reply(self, body: bytes, seconds: float) -> None:
        """Send the result of the last program. A trainer that has gone is no error: the next ``receive`` says so."""
        try:
            self._socket.sendall(pack_reply(body, seconds))
        except OSError:
            return

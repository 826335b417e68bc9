"""A worker process's end of its socket to the trainer. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket


class Channel:
    """Receives requests and reports how programs ended.

    Takes the socket from standard input, then points all standard streams at /dev/null.
    """

    def __init__(self) -> None:
        high = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64)  # above the few descriptors that a child keeps
        self._socket = socket.socket(fileno=high)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)

    def receive(self) -> tuple[int, ...] | None:
        """Return the next request's descriptors, or None once the trainer has closed its end.

        Two descriptors are a program (its source, its result pipe); none is a request for a new shared child.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 1, 2)
        except OSError:
            return None
        return tuple(descriptors) if data else None

    def send(self, message: bytes, *descriptors: int) -> None:
        """Send a message. If the trainer is gone, do nothing: the next ``receive`` reports it."""
        with contextlib.suppress(OSError):
            socket.send_fds(self._socket, [message], descriptors)


def read_all(fd: int) -> bytes:
    """Read a descriptor until end of file."""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)
